"""The node's processes and their configuration files: containerd, its pod network, kubelet, kube-proxy.

Pure rendering; `node` writes the files and `run` starts the processes. All absolute paths below /run, /var/lib and
/var/log are those of the node's own mount namespace, so they are short and the same in every cluster.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import yaml

from integration.kubelab import pki
from integration.kubelab.components import Component, Settings
from libs.common.errors import NotFound

PAUSE_IMAGE = "herdsman.dev/kubelab/pause:1"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
BRIDGE = "cni0"
CNI_FOLDERS = ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni")


def render_node_components(s: Settings) -> tuple[Component, list[Component]]:
    """containerd, which starts first of all, and what starts after the control plane."""
    config = s.layout.config
    containerd = Component(
        "containerd",
        (program("containerd"), "--config", str(config / "containerd.toml"), "--log-level", "info"),
        on_node=True,
    )
    kubelet_flags = (
        f"--config={config / 'kubelet.yaml'}",
        f"--kubeconfig={s.kubeconfig_of('kubelet')}",
        f"--hostname-override={s.layout.name}",
        f"--node-ip={s.subnet.node_ip if s.subnet else ''}",
        "--root-dir=/var/lib/kubelet",
        "--node-labels=herdsman.dev/kubelab=true",
    )
    memory = {"GOGC": "50"}
    return containerd, [
        Component("kubelet", (str(s.binaries["kubelet"]), *kubelet_flags), memory, on_node=True),
        Component(
            "kube-proxy",
            (str(s.binaries["kube-proxy"]), f"--config={config / 'kube-proxy.yaml'}"),
            memory,
            on_node=True,
        ),
    ]


def render_node_files(s: Settings, snapshotter: str) -> dict[str, str]:
    """Content by file name below the cluster's config folder."""
    return {
        "containerd.toml": _containerd(s, snapshotter),
        "cni/10-kubelab.conflist": _pod_network(s),
        "kubelet.yaml": yaml.safe_dump(_kubelet(s), sort_keys=False),
        "kube-proxy.yaml": yaml.safe_dump(_kube_proxy(s), sort_keys=False),
    }


def program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise NotFound(f'the program {name} is missing on this machine; "herdsman-kubelab doctor" tells how to get it')
    return path


def cni_folder() -> Path:
    for folder in CNI_FOLDERS:
        if (Path(folder) / "bridge").exists():
            return Path(folder)
    raise NotFound(
        'the pod-network plug-ins are missing on this machine; "herdsman-kubelab doctor" tells how to get them'
    )


def _containerd(s: Settings, snapshotter: str) -> str:
    return f"""version = 2
root = {json.dumps(str(s.layout.node / "containerd"))}
state = "/run/containerd"

[grpc]
  address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # A process without CAP_SYS_RESOURCE may not lower its oom_score_adj; runc would fail for every sandbox.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = {json.dumps(program("runc"))}
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = {json.dumps(str(cni_folder()))}
    conf_dir = {json.dumps(str(s.layout.config / "cni"))}
"""


def _pod_network(s: Settings) -> str:
    assert s.subnet is not None
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": s.subnet.pods}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": "/run/kubelab/addresses",  # forgotten with the namespace, so a killed node leaks no address
        },
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "0.4.0", "name": "kubelab", "plugins": [bridge, portmap]}, indent=2)


def _kubelet(s: Settings) -> Mapping[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": s.certificate(pki.CLUSTER_CA)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": s.certificate("kubelet-server"),
        "tlsPrivateKeyFile": s.key("kubelet-server"),
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/kubelab-{s.layout.instance_id}",
        "failCgroupV1": False,  # many machines still mount version 1 beside version 2
        "failSwapOn": False,
        "makeIPTablesUtilChains": False,
        "oomScoreAdj": 0,
        "volumePluginDir": "/run/kubelab/volume-plugins",
        # The disk belongs to the whole machine: neither images nor pods are thrown out because others filled it.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "1%"},
    }  # fmt: skip


def _kube_proxy(s: Settings) -> Mapping[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": s.kubeconfig_of("kube-proxy")},
        "hostnameOverride": s.layout.name,
        "mode": "nftables",
        # Pods of one bridge answer each other directly; without this, answers would bypass the address translation.
        "nftables": {"masqueradeAll": True},
        "detectLocalMode": "BridgeInterface",
        "detectLocal": {"bridgeInterface": BRIDGE},
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "oomScoreAdj": 0,
    }
