"""kubeconfig text to an endpoint: every way to say who one is, and a sentence for every way to say it wrong."""

from __future__ import annotations

import base64
import json
import stat
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from libs.common import errors
from libs.common.crypto.ca import generate_ca
from libs.common.kube.credential import TokenFile
from libs.common.kube.endpoint import Endpoint
from libs.common.kube.in_cluster import is_in_cluster, load_in_cluster
from libs.common.kube.kubeconfig import load_kubeconfig

CA = generate_ca("test", datetime.now(UTC))


def write(
    folder: Path,
    user: dict[str, Any] | None = None,
    cluster: dict[str, Any] | None = None,
    name: str = "config",
    **more: Any,
) -> Path:
    document = {
        "current-context": "main",
        "contexts": [{"name": "main", "context": {"cluster": "c", "user": "u", "namespace": "ns"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://api.example:6443", **(cluster or {})}}],
        "users": [{"name": "u", "user": user or {}}],
        **more,
    }
    file = folder / name
    file.write_text(yaml.safe_dump(document))
    return file


def load(folder: Path, user: dict[str, Any] | None = None, **more: Any) -> Endpoint:
    return load_kubeconfig([write(folder, user, **more)])


async def test_inline_data_and_files_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_bytes(CA.certificate)
    inline = load(tmp_path, cluster={"certificate-authority-data": base64.b64encode(CA.certificate).decode()})
    named = load(tmp_path, cluster={"certificate-authority": "ca.crt"})
    assert inline.ca == named.ca == CA.certificate.decode()
    assert (named.host, named.port, named.namespace, named.base_path) == ("api.example", 6443, "ns", "")
    assert await named.ssl_context() is not None


async def test_every_static_proof(tmp_path: Path) -> None:
    assert await load(tmp_path, {"token": "abc"}).credential.authorization() == "Bearer abc"
    assert await load(tmp_path, {"username": "a", "password": "b"}).credential.authorization() == "Basic YTpi"
    assert await load(tmp_path).credential.authorization() is None
    pair = {
        "client-certificate-data": base64.b64encode(CA.certificate).decode(),
        "client-key-data": base64.b64encode(CA.key).decode(),
    }
    endpoint = load(tmp_path, pair)
    assert await endpoint.credential.certificate() is not None
    assert await endpoint.ssl_context() is not None


async def test_a_token_file_is_read_again_when_it_is_old_or_refused(tmp_path: Path) -> None:
    now = [0.0]
    file = tmp_path / "token"
    file.write_text("one\n")
    token = TokenFile(file, lambda: now[0])
    assert await token.authorization() == "Bearer one"
    file.write_text("two")
    assert await token.authorization() == "Bearer one"
    now[0] = 31
    assert await token.authorization() == "Bearer two"
    file.write_text("three")
    assert token.refused()
    assert await token.authorization() == "Bearer three"
    file.unlink()
    token.refused()
    with pytest.raises(errors.Unauthenticated, match="cannot read the token file"):
        await token.authorization()


def plug_in(folder: Path, status: dict[str, Any] | str, code: int = 0) -> dict[str, Any]:
    """A real program that prints what an exec plug-in prints and counts its runs."""
    text = (
        status
        if isinstance(status, str)
        else json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status})
    )
    program = folder / "plug-in"
    program.write_text(
        f"#!{sys.executable}\nimport os, sys, json\nopen({str(folder / 'runs')!r}, 'a').write(os.environ['KUBERNETES_EXEC_INFO'] + '\\n')\n"
        f"sys.stderr.write('no luck today\\n')\nprint({text!r})\nsys.exit({code})\n"
    )
    program.chmod(stat.S_IRWXU)
    return {
        "exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "./plug-in", "provideClusterInfo": True}
    }


async def test_an_exec_plug_in_is_asked_once_and_again_when_refused(tmp_path: Path) -> None:
    endpoint = load(tmp_path, plug_in(tmp_path, {"token": "fresh"}))
    for _ in range(3):
        assert await endpoint.credential.authorization() == "Bearer fresh"
    runs = (tmp_path / "runs").read_text().splitlines()
    assert len(runs) == 1
    assert json.loads(runs[0])["spec"] == {"interactive": False, "cluster": {"server": "https://api.example:6443"}}
    assert endpoint.credential.refused()
    await endpoint.credential.authorization()
    assert len((tmp_path / "runs").read_text().splitlines()) == 2


async def test_an_exec_plug_in_is_asked_again_before_its_token_expires(tmp_path: Path) -> None:
    soon = datetime.now(UTC).isoformat()
    endpoint = load(tmp_path, plug_in(tmp_path, {"token": "short", "expirationTimestamp": soon}))
    await endpoint.credential.authorization()
    await endpoint.credential.authorization()
    assert len((tmp_path / "runs").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        ({"token": "x"}, 3, "ended with code 3: no luck today"),
        ("not json", 0, "printed no ExecCredential"),
        ({}, 0, "neither a token nor a certificate"),
        ('{"apiVersion": "client.authentication.k8s.io/v1beta1", "status": {"token": "x"}}', 0, "answered in"),
        ({"token": "a\r\nX-Evil: 1"}, 0, "characters that no token has"),
    ],
)
async def test_what_a_plug_in_can_do_wrong(tmp_path: Path, status: dict[str, Any] | str, code: int, says: str) -> None:
    with pytest.raises((errors.Unauthenticated, errors.Invalid), match=says):
        await load(tmp_path, plug_in(tmp_path, status, code)).credential.authorization()


async def test_a_plug_in_that_is_not_there_gives_its_install_hint(tmp_path: Path) -> None:
    user = {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": "no-such-program",
            "installHint": "install\nit",
        }
    }
    with pytest.raises(errors.Unauthenticated, match="install it"):
        await load(tmp_path, user).credential.authorization()


def test_the_first_file_that_names_a_thing_wins(tmp_path: Path) -> None:
    first = write(tmp_path, name="a")
    second = write(
        tmp_path, name="b", cluster={"server": "https://other"}, contexts=[{"name": "two", "context": {"cluster": "c"}}]
    )
    assert load_kubeconfig([first, second]).url == "https://api.example:6443"
    assert load_kubeconfig([first, second], "two").url == "https://api.example:6443"


@pytest.mark.parametrize(
    ("user", "more", "says"),
    [
        ({"as": "root"}, {}, "impersonates"),
        ({"auth-provider": {"name": "gcp"}}, {}, "removed"),
        ({"client-certificate-data": "YQ=="}, {}, "needs a client-key"),
        ({"token": "a b"}, {}, "bearer token"),
        ({"client-key": "missing.pem", "client-certificate": "missing.pem"}, {}, "cannot read client-certificate"),
        ({"exec": {"apiVersion": "client.authentication.k8s.io/v1alpha1", "command": "x"}}, {}, "not supported"),
        (
            {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "x", "interactiveMode": "Always"}},
            {},
            "asks a person",
        ),
        ({}, {"current-context": ""}, "no current context"),
        ({}, {"current-context": "nowhere"}, 'no context "nowhere"; it has: main'),
        ({}, {"cluster": {"server": "ftp://x"}}, "no server URL"),
        ({}, {"cluster": {"insecure-skip-tls-verify": True, "certificate-authority-data": "YQ=="}}, "cannot have both"),
    ],
)
def test_what_cannot_be_used_says_why(tmp_path: Path, user: dict[str, Any], more: dict[str, Any], says: str) -> None:
    with pytest.raises(errors.Invalid, match=says):
        load(tmp_path, user, **more)


@pytest.mark.parametrize("text", ["", "- list", "{", "a: [\x00"])
def test_what_is_no_kubeconfig_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config"
    file.write_text(text)
    with pytest.raises(errors.Invalid):
        load_kubeconfig([file])


async def test_a_pod_finds_its_own_cluster(tmp_path: Path) -> None:
    for name, text in (("token", "t"), ("ca.crt", CA.certificate.decode()), ("namespace", "herdsman-system")):
        (tmp_path / name).write_text(text)
    environment = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    assert is_in_cluster(environment, tmp_path)
    endpoint = load_in_cluster(environment, tmp_path)
    assert (endpoint.url, endpoint.host, endpoint.namespace) == ("https://[fd00::1]:443", "fd00::1", "herdsman-system")
    assert await endpoint.credential.authorization() == "Bearer t"
    with pytest.raises(errors.Invalid, match="does not run in a pod"):
        load_in_cluster({}, tmp_path)
