"""Kubelab: real Kubernetes clusters on one Linux machine, for development and tests.

A plain cluster is etcd, kube-apiserver and kube-controller-manager as ordinary processes on loopback ports; it starts
in seconds and needs no rights. A full one adds kube-scheduler and a node (containerd, kubelet, kube-proxy) that lives in
mount, network and control-group enclosures of its own, so that pods run and nothing stays behind; it needs root.

Read in this order: `paths` (where things lie), `binaries` and `build` (where programs come from), `pki`, `components`
(which processes with which flags), `supervisor` (keeps them running), `node` (the enclosure), `run` (all of it wired),
`cluster` (the Python interface that tests use), `cli` (the command `herdsman-kubelab`).
Nothing here is imported by a service.
"""
