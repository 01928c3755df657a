"""Who the agent is to the hub: a key that it makes itself, and the exchange of a one-time token for a credential.

Only the hub's own CA is trusted here: whoever has a certificate for the hub's name that everybody else would trust gets nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import nkeys
import structlog
from pydantic import ValidationError

from libs.common import errors
from libs.common.contracts.messages import AgentCredential, AgentRegistration
from libs.common.relay.outbound import Hub, explain_certificate, find_proxy
from libs.common.version import VERSION
from services.agent.state import Identity

REGISTER_PATH = "/v1/agents/register"
ATTEMPT_TIMEOUT_S = 20.0
_BACKOFF_S = (0.5, 30.0)
_ANSWER_LIMIT_BYTES = 64 << 10

REGISTRATION_FAILED = "registration_failed"
AGENT_REGISTERED = "agent_registered"
log = structlog.get_logger(__name__)


def make_key() -> tuple[str, str]:
    """A fresh NKEY of a user: (seed, public key)."""
    seed: bytes = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    return seed.decode("ascii"), public_key_of(seed.decode("ascii"))


def public_key_of(seed: str) -> str:
    return str(nkeys.from_seed(bytearray(seed, "ascii")).public_key.decode("ascii"))


def make_signer(seed: str) -> Callable[[bytes], bytes]:
    """A function that signs with the key (Ed25519, 64 bytes)."""
    pair = nkeys.from_seed(bytearray(seed, "ascii"))

    def sign(data: bytes) -> bytes:
        return bytes(pair.sign(data))

    return sign


def trust(ca_file: Path) -> ssl.SSLContext:
    """TLS settings that trust the hub's own CA and no other. Raises Invalid."""
    try:
        context = trust_pem(ca_file.read_text())
    except (OSError, UnicodeDecodeError) as exc:
        raise errors.Invalid(f"cannot read the hub's certificate authority {ca_file}: {exc}") from exc
    except (ssl.SSLError, ValueError) as exc:
        raise errors.Invalid(f"the hub's certificate authority {ca_file} is no PEM certificate") from exc
    return context


def trust_pem(pem: str) -> ssl.SSLContext:
    """TLS settings that trust these authorities and no other. Raises ValueError or SSLError."""
    context = ssl.create_default_context(cadata=pem)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def read_token(file: Path | None) -> str:
    """The registration token in the file; empty when there is none. Raises Invalid for a file that cannot be read."""
    if file is None:
        return ""
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as exc:
        raise errors.Invalid(f"cannot read the registration token file {file}: {exc}") from exc


def digest_of(token: str) -> str:
    """What is remembered of a token that was exchanged."""
    return hashlib.sha256(token.encode()).hexdigest() if token else ""


async def register(hub: Hub, token: str, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> Identity:
    """Exchange the token for an identity. Tries until the hub says yes or no.

    One key for all tries: when an answer was lost, the hub knows the key again and answers as before. Raises
    Unauthenticated, Expired, Conflict, NotFound, Invalid, Denied with what to do about it.
    """
    seed, public_key = make_key()
    attempt = 0
    while True:
        try:
            credential = await _exchange(
                hub, AgentRegistration(token=token, public_key=public_key, agent_version=VERSION)
            )
        except (errors.Unavailable, errors.Timeout, errors.TooManyRequests) as exc:
            attempt += 1
            low, high = _BACKOFF_S
            pause = random.uniform(low, min(high, low * 2.0 ** min(attempt, 10)))
            log.warning(
                REGISTRATION_FAILED, hub=hub.authority, error=exc.message, attempt=attempt, retry_in_s=round(pause, 1)
            )
            await sleep(max(pause, float(exc.retry_after_s or 0)))
            continue
        log.info(AGENT_REGISTERED, cluster=credential.cluster, cluster_id=credential.cluster_uid, hub=hub.authority)
        return Identity(
            seed, public_key, credential.jwt, credential.cluster, credential.cluster_uid,
            credential.expires_at.isoformat(), credential.renew_after_s, digest_of(token),
        )  # fmt: skip


async def _exchange(hub: Hub, request: AgentRegistration) -> AgentCredential:
    proxy = find_proxy(hub.parts.scheme, hub.host, hub.port, hub.environment)
    limits = aiohttp.ClientTimeout(total=ATTEMPT_TIMEOUT_S, connect=10)
    url = f"{hub.parts.scheme}://{hub.authority}{hub.prefix.decode()}{REGISTER_PATH}"
    try:
        async with (
            aiohttp.ClientSession(timeout=limits, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.post(
                url, json=request.model_dump(mode="json"), ssl=hub.tls or True, allow_redirects=False,
                proxy=proxy.geturl() if proxy else None, headers={"User-Agent": f"herdsman-agent/{VERSION}"},
            ) as answer,
        ):  # fmt: skip
            body = await answer.content.read(_ANSWER_LIMIT_BYTES)
            if answer.status in (200, 201):
                return AgentCredential.model_validate_json(body)
            raise _refusal(hub, answer.status, body, answer.headers.get("Retry-After", ""))
    except ValidationError as exc:
        raise errors.Unavailable(f"what answers at {hub.authority} is no hub: check the address") from exc
    except TimeoutError as exc:
        raise errors.Timeout(f"the hub {hub.authority} did not answer within {ATTEMPT_TIMEOUT_S:.0f} s") from exc
    except aiohttp.ClientConnectorCertificateError as exc:
        problem = exc.certificate_error
        text = explain_certificate(hub, problem) if isinstance(problem, ssl.SSLCertVerificationError) else str(problem)
        raise errors.Unavailable(text) from exc
    except aiohttp.ClientConnectorError as exc:
        why = exc.os_error.strerror or str(exc.os_error)
        raise errors.Unavailable(
            f"the hub {hub.authority} cannot be reached: {why}: check the address and the firewall"
        ) from exc
    except (aiohttp.ClientError, OSError) as exc:
        raise errors.Unavailable(f"the connection to the hub {hub.authority} broke: {type(exc).__name__}") from exc


def _refusal(hub: Hub, code: int, body: bytes, retry_after: str) -> errors.HerdsmanError:
    try:
        message = str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        message = ""
    families: dict[int, type[errors.HerdsmanError]] = {
        400: errors.Invalid, 401: errors.Unauthenticated, 403: errors.Denied, 404: errors.NotFound, 409: errors.Conflict,
        410: errors.Expired, 422: errors.Invalid, 429: errors.TooManyRequests,
    }  # fmt: skip
    if not message:
        # Whatever answered is not the hub (a balancer's page), so its no is no final no either.
        return errors.Unavailable(
            f"what answers at {hub.authority} is no hub, or it is not up yet (HTTP status {code})"
        )
    family = families.get(code, errors.Unavailable)
    return family(
        f"the hub {hub.authority} refuses to register this agent: {message}" if code < 500 and code != 429 else message,
        retry_after_s=int(retry_after) if retry_after.isdigit() else None,
    )
