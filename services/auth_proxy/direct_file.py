"""Which files of the folder of direct clusters are taken, and what they hold: an endpoint to relay to.

A kubeconfig is a credential with the right to impersonate, and may name a program to run. So it must be its owner's alone, in a folder that
nobody else can write to. A Secret that Kubernetes mounts for a group (`fsGroup`: 0440, owned by root, on a read-only mount) is that too.
"""

from __future__ import annotations

import ipaddress
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from libs.common import errors
from libs.common.kube.endpoint import Endpoint
from libs.common.kube.kubeconfig import find_named_files, load_kubeconfig

SUFFIX = ".kubeconfig"
MAX_BYTES = 1 << 20
_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
Mark = tuple[int, int, int, int] | None
"""By it a file is known to be the same: device and inode, size, time of change. None = it is not there."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """`others` are the files that the kubeconfig names: when one changes, all is read anew."""

    endpoint: Endpoint
    others: tuple[Path, ...]


def find_files(folder: Path) -> dict[str, Path]:
    """Cluster's name → file. Raises Invalid when the folder can't be trusted, Unavailable when it can't be read."""
    try:
        found = folder.stat()
        read_only = bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
        files = sorted(folder.iterdir())
    except OSError as exc:
        raise errors.Unavailable(f"the folder of direct clusters {folder} cannot be read: {exc.strerror}") from exc
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not read_only:
        raise errors.Invalid(f"others may write to the folder of direct clusters {folder}: chmod go-w {folder}")
    named = {file.name.removesuffix(SUFFIX): file for file in files if file.name.endswith(SUFFIX)}
    return {name: file for name, file in named.items() if _NAME.fullmatch(name)}


def mark_of(file: Path) -> Mark:
    """The mark of what the name leads to: a Secret is replaced by turning a link."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev ^ found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def load(file: Path) -> Loaded:
    """The endpoint in a file. Raises Invalid with what is wrong with it and what to do."""
    check_private(file)
    try:
        endpoint = load_kubeconfig([file])
        others = find_named_files(file)
        # Read here, so that a URL without a host, or with a port that is no number, is found now.
        where = endpoint.host, endpoint.port
    except (TypeError, AttributeError, KeyError, ValueError, RecursionError) as exc:
        raise errors.Invalid(f"{file} is no kubeconfig: something in it is of another kind than it must be") from exc
    if not where[0]:
        raise errors.Invalid("the server's URL names no host")
    check_relayable(endpoint)
    for other in others:
        check_private(other, secret=False)
    return Loaded(endpoint, tuple(others))


def check_private(file: Path, *, secret: bool = True) -> None:
    """Raises Invalid for a file that others can read (unless it is not `secret`) or change."""
    try:
        found = file.stat()
    except OSError as exc:
        raise errors.Invalid(f"{file} cannot be read: {exc.strerror}") from exc
    mine = found.st_uid == os.geteuid()
    if not mine and found.st_uid != 0:
        raise errors.Invalid(f"{file} belongs to another user: give it to the one that the front door runs as")
    refused = stat.S_IWGRP | stat.S_IWOTH
    if secret:
        # Root's file can only reach us through a group; our own needs no group.
        refused |= stat.S_IRWXO | (stat.S_IRWXG if mine else 0)
    if found.st_size > MAX_BYTES:
        raise errors.Invalid(f"{file} is larger than {MAX_BYTES >> 20} MiB: that is no kubeconfig")
    if found.st_mode & refused:
        raise errors.Invalid(f"others may read or change {file}, which holds a credential: chmod 600 {file}")


def check_relayable(endpoint: Endpoint) -> None:
    """Raises Invalid for what would show the credential to others, and for what can't be relayed to."""
    parts = urlsplit(endpoint.url)
    if endpoint.insecure:
        raise errors.Invalid(
            "insecure-skip-tls-verify would show the credential to whoever answers: give the certificate-authority instead"
        )
    if parts.scheme != "https" and not _is_loopback(endpoint.host):
        raise errors.Invalid(
            "the server's URL begins with http://, which would show the credential to the network: use https://"
        )
    if endpoint.proxy_url:
        raise errors.Invalid("proxy-url is not supported here: let the cluster's agent dial out through the proxy")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
