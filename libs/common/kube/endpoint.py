"""Where one API server is, whom we trust to be it, and who we are there. Made by `kubeconfig` and `in_cluster`."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from libs.common import errors
from libs.common.kube.credential import Credential, Static


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One API server. `ca` holds PEM text; without it the machine's trust store decides."""

    url: str
    ca: str = ""
    credential: Credential = field(default_factory=Static)
    namespace: str = "default"
    server_name: str = ""
    """The name that the certificate must hold; empty = that of the URL."""
    insecure: bool = False
    """True: any certificate is taken. Only when the kubeconfig says so."""
    proxy_url: str = ""

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        parts = urlsplit(self.url)
        return parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def base_path(self) -> str:
        """What stands before /api in the URL, without a closing slash; empty for most."""
        return urlsplit(self.url).path.rstrip("/")

    async def ssl_context(self) -> ssl.SSLContext | None:
        """The TLS settings for new connections, client certificate included; None for plain HTTP. Raises Invalid, Unauthenticated."""
        if urlsplit(self.url).scheme != "https":
            return None
        try:
            context = ssl.create_default_context(cadata=self.ca or None)
        except (ssl.SSLError, ValueError) as exc:
            raise errors.Invalid(f"the certificate authority for {self.url} is not PEM: {exc}") from exc
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        certificate = await self.credential.certificate()
        if certificate is not None:
            certificate.load_into(context)
        return context
