"""Which processes make a cluster, with which flags: values in, values out, nothing is started here.

`run` gives the settings; `supervisor` starts what comes out, in order. Memory is saved by a smaller garbage-collection
target and by leaving out profiling, never by switching off what a real cluster has: the watch cache, admission and
priority-and-fairness stay on, because clients can tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from integration.kubelab import pki
from integration.kubelab.addresses import SERVICE_RANGE, Subnet
from integration.kubelab.binaries import Binaries
from integration.kubelab.paths import Layout

PORT_NAMES = ("etcd-client", "etcd-peer", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
# Half the usual head-room above live data, for a little more CPU. Not for the API server: it would save 35 MB of 290, and
# cost a tenth of the start.
_GO_MEMORY = {"GOGC": "50"}


@dataclass(frozen=True, slots=True)
class Probe:
    """An HTTPS address that answers 200 when the component is ready; `identity` is the certificate to show."""

    url: str
    authority: str | None
    identity: str | None = None


@dataclass(frozen=True, slots=True)
class Component:
    """One process. The next one in order starts when this one's probe succeeds; components without a probe are not waited for."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    probe: Probe | None = None
    on_node: bool = False
    ready_timeout_s: float = 60.0
    stop_timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Settings:
    """One cluster as it is to run. `subnet` is there exactly for a full one."""

    layout: Layout
    binaries: Binaries
    ports: Mapping[str, int]
    subnet: Subnet | None = None
    minimal: bool = False

    @property
    def full(self) -> bool:
        return self.subnet is not None

    @property
    def server_ip(self) -> str:
        """Loopback; for a full cluster this machine's end of the link to the node, since pods can't reach loopback."""
        return self.subnet.host_ip if self.subnet else "127.0.0.1"

    @property
    def server(self) -> str:
        return f"https://{self.server_ip}:{self.ports['kube-apiserver']}"

    def certificate(self, name: str) -> str:
        return str(pki.certificate_path(self.layout.pki, name))

    def key(self, name: str) -> str:
        return str(pki.key_path(self.layout.pki, name))

    def kubeconfig_of(self, component: str) -> str:
        return str(self.layout.config / f"{component}.kubeconfig")


def render_components(settings: Settings) -> list[Component]:
    """All processes of the control plane, in the order of their start. The node's are rendered by `node_config`."""
    components = [_etcd(settings), _apiserver(settings)]
    if not settings.minimal:
        components.append(_controller_manager(settings))
    if settings.full:
        components.append(_scheduler(settings))
    return components


def _flags(flags: Mapping[str, str | int]) -> tuple[str, ...]:
    return tuple(f"--{name}={value}" for name, value in flags.items())


def _etcd(s: Settings) -> Component:
    client = f"https://127.0.0.1:{s.ports['etcd-client']}"
    peer = f"https://127.0.0.1:{s.ports['etcd-peer']}"
    flags: dict[str, str | int] = {
        "name": "kubelab",
        "data-dir": str(s.layout.etcd_data),
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"kubelab={peer}",
        "cert-file": s.certificate("etcd"),
        "key-file": s.key("etcd"),
        "client-cert-auth": "true",
        "trusted-ca-file": s.certificate(pki.ETCD_CA),
        "peer-cert-file": s.certificate("etcd"),
        "peer-key-file": s.key("etcd"),
        "peer-client-cert-auth": "true",
        "peer-trusted-ca-file": s.certificate(pki.ETCD_CA),
        # A single member wins every election, so it need not wait a second before it asks for one.
        "heartbeat-interval": 20,
        "election-timeout": 100,
        # Data survives killed processes, not a power cut: right for a cluster that can be made again in seconds.
        "unsafe-no-fsync": "true",
        "quota-backend-bytes": 4 * 2**30,
        "auto-compaction-mode": "periodic",
        "auto-compaction-retention": "30m",
        "logger": "zap",
        "log-level": "warn",
    }
    return Component(
        "etcd", (str(s.binaries["etcd"]), *_flags(flags)), _GO_MEMORY,
        Probe(f"{client}/health", pki.ETCD_CA, "etcd-client"),
    )  # fmt: skip


def _apiserver(s: Settings) -> Component:
    flags: dict[str, str | int] = {
        "etcd-servers": f"https://127.0.0.1:{s.ports['etcd-client']}",
        "etcd-cafile": s.certificate(pki.ETCD_CA),
        "etcd-certfile": s.certificate("etcd-client"),
        "etcd-keyfile": s.key("etcd-client"),
        "bind-address": s.server_ip,
        "advertise-address": s.server_ip,
        "secure-port": s.ports["kube-apiserver"],
        "tls-cert-file": s.certificate("apiserver"),
        "tls-private-key-file": s.key("apiserver"),
        "client-ca-file": s.certificate(pki.CLUSTER_CA),
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "allow-privileged": "true",
        "service-cluster-ip-range": SERVICE_RANGE,
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": str(s.layout.pki / f"{pki.SERVICE_ACCOUNT_KEY}.pub"),
        "service-account-signing-key-file": s.key(pki.SERVICE_ACCOUNT_KEY),
        "requestheader-client-ca-file": s.certificate(pki.FRONT_PROXY_CA),
        "requestheader-allowed-names": "front-proxy-client",
        "requestheader-username-headers": "X-Remote-User",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "proxy-client-cert-file": s.certificate("front-proxy-client"),
        "proxy-client-key-file": s.key("front-proxy-client"),
        # Aggregated APIs and webhooks are dialled at their pods: service addresses exist inside the node only.
        "enable-aggregator-routing": "true",
        "profiling": "false",
    }
    if s.full:
        flags |= {
            "kubelet-preferred-address-types": "InternalIP",
            "kubelet-client-certificate": s.certificate("apiserver-kubelet-client"),
            "kubelet-client-key": s.key("apiserver-kubelet-client"),
            "kubelet-certificate-authority": s.certificate(pki.CLUSTER_CA),
        }
    else:
        # An Endpoints object may not hold a loopback address, and without a node nobody would use it.
        flags |= {"endpoint-reconciler-type": "none"}
    return Component(
        "kube-apiserver", (str(s.binaries["kube-apiserver"]), *_flags(flags)),
        probe=Probe(f"{s.server}/readyz", pki.CLUSTER_CA, "admin"),
    )  # fmt: skip


def _delegating(s: Settings, name: str) -> dict[str, str | int]:
    """What controller-manager and scheduler have in common."""
    kubeconfig = s.kubeconfig_of(name)
    return {
        "kubeconfig": kubeconfig,
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "bind-address": "127.0.0.1",
        "secure-port": s.ports[name],
        "leader-elect": "false",  # there is one of each, and a lease would cost the old holder's time at every restart
        "profiling": "false",
    }


def _controller_manager(s: Settings) -> Component:
    name = "kube-controller-manager"
    flags = _delegating(s, name) | {
        "use-service-account-credentials": "true",
        "service-account-private-key-file": s.key(pki.SERVICE_ACCOUNT_KEY),
        "root-ca-file": s.certificate(pki.CLUSTER_CA),
        "cluster-signing-cert-file": s.certificate(pki.CLUSTER_CA),
        "cluster-signing-key-file": s.key(pki.CLUSTER_CA),
        "cluster-name": s.layout.name,
        # The usual 20 requests a second make its first start wait for tokens of its own controllers, five seconds long.
        "kube-api-qps": 200,
        "kube-api-burst": 400,
        # Otherwise it makes a folder in /usr.
        "flex-volume-plugin-dir": str(s.layout.root / "volume-plugins"),
    }
    return Component(
        name,
        (str(s.binaries[name]), *_flags(flags)),
        _GO_MEMORY,
        Probe(f"https://127.0.0.1:{s.ports[name]}/healthz", None),
    )


def _scheduler(s: Settings) -> Component:
    name = "kube-scheduler"
    return Component(
        name, (str(s.binaries[name]), *_flags(_delegating(s, name))), _GO_MEMORY,
        Probe(f"https://127.0.0.1:{s.ports[name]}/healthz", None),
    )  # fmt: skip
