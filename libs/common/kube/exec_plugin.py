"""A credential that a program prints: kubeconfig's `exec` (client.authentication.k8s.io v1 and v1beta1).

The program gets no terminal (`provideClusterInfo` is honoured) and is run again shortly before what it printed expires.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from libs.common import errors
from libs.common.kube.credential import ClientCertificate, bearer

API_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
RUN_TIMEOUT_S = 60.0
OUTPUT_LIMIT_BYTES = 1 << 20
EARLY = timedelta(seconds=60)
"""A credential is renewed this long before it expires, so that none expires under way."""


@dataclass(frozen=True, slots=True)
class ExecSpec:
    """What a kubeconfig says under `users[].user.exec`."""

    api_version: str
    command: str
    args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    install_hint: str = ""
    cluster_info: Mapping[str, Any] | None = None
    directory: str | None = None


class ExecCredential:
    """Runs the program when it is needed; one run at a time, its result shared by all who wait."""

    def __init__(self, spec: ExecSpec, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._spec = spec
        self._now = now
        self._lock = asyncio.Lock()
        self._token: str | None = None
        self._certificate: ClientCertificate | None = None
        self._expires: datetime | None = None
        self._known = False

    async def authorization(self) -> str | None:
        await self._ensure()
        return None if self._token is None else bearer(self._token)

    async def certificate(self) -> ClientCertificate | None:
        await self._ensure()
        return self._certificate

    def refused(self) -> bool:
        self._known = False
        return True

    async def _ensure(self) -> None:
        async with self._lock:
            if self._known and (self._expires is None or self._now() + EARLY < self._expires):
                return
            status = parse_output(self._spec, await self._run())
            self._token = status.get("token")
            self._certificate = _certificate_in(status)
            self._expires = _parse_time(status.get("expirationTimestamp"))
            self._known = True

    async def _run(self) -> bytes:
        info: dict[str, Any] = {
            "apiVersion": self._spec.api_version,
            "kind": "ExecCredential",
            "spec": {"interactive": False, **({"cluster": self._spec.cluster_info} if self._spec.cluster_info else {})},
        }
        environment = {**os.environ, **self._spec.env, "KUBERNETES_EXEC_INFO": json.dumps(info)}
        try:
            process = await asyncio.create_subprocess_exec(
                self._spec.command, *self._spec.args, env=environment, cwd=self._spec.directory,
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                limit=OUTPUT_LIMIT_BYTES,
            )  # fmt: skip
        except OSError as exc:
            hint = f" {' '.join(self._spec.install_hint.split())}" if self._spec.install_hint else ""
            raise errors.Unauthenticated(
                f'cannot run the credential program "{self._spec.command}": {exc.strerror}.{hint}'
            ) from exc
        started = time.monotonic()
        try:
            async with asyncio.timeout(RUN_TIMEOUT_S):
                out, err = await process.communicate()
        except TimeoutError as exc:
            waited = time.monotonic() - started
            raise errors.Unauthenticated(
                f'the credential program "{self._spec.command}" did not end within {waited:.0f} s'
            ) from exc
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode != 0:
            last = err.decode("utf-8", "replace").strip().splitlines()[-1:] or ["it printed no reason"]
            raise errors.Unauthenticated(
                f'the credential program "{self._spec.command}" ended with code {process.returncode}: {last[0][:300]}'
            )
        return out


def parse_output(spec: ExecSpec, output: bytes) -> Mapping[str, Any]:
    """The `status` of what the program printed. Raises Unauthenticated."""
    try:
        document = json.loads(output)
        status = document["status"]
        version = document["apiVersion"]
    except (ValueError, KeyError, TypeError) as exc:
        raise errors.Unauthenticated(f'the credential program "{spec.command}" printed no ExecCredential') from exc
    if version != spec.api_version:
        raise errors.Unauthenticated(
            f'the credential program "{spec.command}" answered in {version}, but the kubeconfig asks for {spec.api_version}'
        )
    if not isinstance(status, dict) or not (status.get("token") or status.get("clientCertificateData")):
        raise errors.Unauthenticated(
            f'the credential program "{spec.command}" printed neither a token nor a certificate'
        )
    return status


def _certificate_in(status: Mapping[str, Any]) -> ClientCertificate | None:
    certificate, key = status.get("clientCertificateData"), status.get("clientKeyData")
    return ClientCertificate(str(certificate).encode(), str(key).encode()) if certificate and key else None


def _parse_time(text: Any) -> datetime | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError as exc:
        raise errors.Unauthenticated("the credential program printed an expirationTimestamp that is no time") from exc
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
