"""kubeconfig text → endpoint. Follows "Organizing Cluster Access Using kubeconfig Files"; the first file that names a thing wins."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from libs.common import errors
from libs.common.kube.credential import ClientCertificate, Credential, Static, TokenFile, basic, bearer
from libs.common.kube.endpoint import Endpoint
from libs.common.kube.exec_plugin import API_VERSIONS, ExecCredential, ExecSpec

_SECTIONS = ("clusters", "contexts", "users")
_CLUSTER_FILES = ("certificate-authority",)
_USER_FILES = ("client-certificate", "client-key")


def load_kubeconfig(files: Sequence[Path], context: str = "") -> Endpoint:
    """The endpoint of a context (default: the current one) of these files. Raises Invalid with a sentence that says what to do."""
    merged: dict[str, Any] = {section: {} for section in _SECTIONS}
    for file in files:
        try:
            document = _parse_yaml(file.read_text())
        except (OSError, UnicodeDecodeError) as exc:
            raise errors.Invalid(f"cannot read the kubeconfig {file}: {exc}") from exc
        except ValueError as exc:
            raise errors.Invalid(f"the kubeconfig {file} is no YAML: {exc}") from exc
        _merge(merged, document, file)
    return parse_kubeconfig(merged, context)


def find_named_files(file: Path) -> list[Path]:
    """The files that a readable kubeconfig names for what it does not hold itself: authorities, certificates, keys.

    A token file is not among them: its credential reads it again by itself.
    """
    document = _parse_yaml(file.read_text())
    found: set[Path] = set()
    for section, keys in (("clusters", _CLUSTER_FILES), ("users", _USER_FILES)):
        for item in document.get(section) or ():
            entry = item.get(section.removesuffix("s")) or {}
            found.update(file.resolve().parent / str(entry[key]) for key in keys if entry.get(key))
    return sorted(found)


def parse_kubeconfig(merged: Mapping[str, Any], context: str = "") -> Endpoint:
    """The endpoint of a context in merged sections (name → (entry, folder that relative paths start from))."""
    wanted = context or str(merged.get("current-context") or "")
    if not wanted:
        raise errors.Invalid("the kubeconfig has no current context: name one")
    found, _ = _named(merged, "contexts", wanted)
    cluster, cluster_folder = _named(merged, "clusters", str(found.get("cluster") or ""))
    user, user_folder = _named(merged, "users", str(found["user"])) if found.get("user") else ({}, Path())
    url = str(cluster.get("server") or "")
    if not url.startswith(("https://", "http://")):
        raise errors.Invalid(f'the cluster of context "{wanted}" has no server URL')
    ca = _data_or_file(cluster, "certificate-authority", cluster_folder)
    insecure = bool(cluster.get("insecure-skip-tls-verify"))
    if insecure and ca:
        raise errors.Invalid(
            "a kubeconfig cluster cannot have both a certificate-authority and insecure-skip-tls-verify"
        )
    return Endpoint(
        url.rstrip("/"),
        ca=ca.decode("utf-8", "replace") if ca else "",
        credential=_credential(user, user_folder, _cluster_info(cluster, ca)),
        namespace=str(found.get("namespace") or "default"),
        server_name=str(cluster.get("tls-server-name") or ""),
        insecure=insecure,
        proxy_url=str(cluster.get("proxy-url") or ""),
    )


def _credential(user: Mapping[str, Any], folder: Path, cluster_info: Mapping[str, Any]) -> Credential:
    if user.get("as") or user.get("as-groups") or user.get("as-uid") or user.get("as-user-extra"):
        raise errors.Invalid(
            "the kubeconfig user impersonates somebody (as, as-groups): give one that has the rights itself"
        )
    if user.get("auth-provider"):
        raise errors.Invalid(
            "the kubeconfig uses an auth-provider, which Kubernetes 1.26 removed: use its exec plug-in"
        )
    if plug_in := user.get("exec"):
        return ExecCredential(_exec_spec(plug_in, folder, cluster_info))
    certificate = _data_or_file(user, "client-certificate", folder)
    key = _data_or_file(user, "client-key", folder)
    if bool(certificate) != bool(key):
        raise errors.Invalid("a kubeconfig user with a client-certificate needs a client-key, and the other way round")
    if user.get("tokenFile"):
        return TokenFile(folder / str(user["tokenFile"]))
    authorization = None
    if user.get("token"):
        authorization = bearer(str(user["token"]))
    elif user.get("username"):
        authorization = basic(str(user["username"]), str(user.get("password") or ""))
    return Static(authorization, ClientCertificate(certificate, key) if certificate and key else None)


def _exec_spec(plug_in: Mapping[str, Any], folder: Path, cluster_info: Mapping[str, Any]) -> ExecSpec:
    version, command = str(plug_in.get("apiVersion") or ""), str(plug_in.get("command") or "")
    if version not in API_VERSIONS:
        raise errors.Invalid(f'exec plug-ins of version "{version}" are not supported: use {API_VERSIONS[0]}')
    if plug_in.get("interactiveMode") == "Always":
        raise errors.Invalid(f'the exec plug-in "{command}" always asks a person: it cannot be used here')
    # A path with a separator is relative to the kubeconfig, a bare name is looked up in PATH.
    program = str(folder / command) if "/" in command else command
    return ExecSpec(
        version,
        program,
        args=[str(arg) for arg in plug_in.get("args") or ()],
        env={str(pair["name"]): str(pair["value"]) for pair in plug_in.get("env") or ()},
        install_hint=str(plug_in.get("installHint") or ""),
        cluster_info=cluster_info if plug_in.get("provideClusterInfo") else None,
        directory=str(folder) if str(folder) != "." else None,
    )


def _cluster_info(cluster: Mapping[str, Any], ca: bytes) -> Mapping[str, Any]:
    info: dict[str, Any] = {key: cluster[key] for key in ("server", "tls-server-name", "proxy-url") if cluster.get(key)}
    if ca:
        info["certificate-authority-data"] = base64.b64encode(ca).decode("ascii")
    return info


def _data_or_file(entry: Mapping[str, Any], key: str, folder: Path) -> bytes:
    """The content of `<key>-data` (base64), else of the file that `<key>` names, else nothing."""
    if data := entry.get(f"{key}-data"):
        try:
            return base64.b64decode("".join(str(data).split()), validate=True)
        except binascii.Error as exc:
            raise errors.Invalid(f"{key}-data in the kubeconfig is not base64") from exc
    if path := entry.get(key):
        try:
            return (folder / str(path)).read_bytes()
        except OSError as exc:
            raise errors.Invalid(f"cannot read {key} of the kubeconfig: {exc}") from exc
    return b""


def _named(merged: Mapping[str, Any], section: str, name: str) -> tuple[Mapping[str, Any], Path]:
    found = merged[section].get(name)
    if found is None:
        known = ", ".join(sorted(merged[section])) or "none"
        raise errors.Invalid(f'the kubeconfig has no {section.removesuffix("s")} "{name}"; it has: {known}')
    entry, folder = found
    return entry, folder


def _merge(merged: dict[str, Any], document: Mapping[str, Any], file: Path) -> None:
    if document.get("current-context"):
        merged.setdefault("current-context", document["current-context"])
    for section in _SECTIONS:
        for item in document.get(section) or ():
            entry = item.get(section.removesuffix("s")) or {}
            merged[section].setdefault(str(item.get("name")), (entry, file.resolve().parent))


def _parse_yaml(text: str) -> Mapping[str, Any]:
    """Raises ValueError. YAML costs the agent a megabyte; in a pod nothing needs it, so it is imported here."""
    import yaml

    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise ValueError(" ".join(str(exc).split())) from exc
    if not isinstance(document, dict):
        raise ValueError("it holds no map")
    return document
