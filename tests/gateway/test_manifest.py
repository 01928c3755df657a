"""The agent's own rights: exactly these, so that one more is a decision that somebody reads."""

from __future__ import annotations

import yaml

from services.agent.owned import BASE_KINDS
from services.gateway.manifest import render_manifest

ALLOWED = {
    "users,groups,serviceaccounts": "impersonate",
    "authentication.k8s.io *": "impersonate",
    "rbac.authorization.k8s.io clusterroles,clusterrolebindings,roles,rolebindings": "get,list,watch,create,update,patch,delete,escalate,bind",
    "nodes": "get,list,watch",
    "namespaces": "get,list,watch,create,patch",
    "resourcequotas,limitranges": "get,list,watch,create,patch,delete",
    "networking.k8s.io networkpolicies": "get,list,watch,create,patch,delete",
    "admissionregistration.k8s.io validatingadmissionpolicies,validatingadmissionpolicybindings": "get,list,watch,create,patch,delete",
    "namespaces [herdsman-system]": "delete",
    "/readyz,/livez,/version": "get",
}


def rules() -> list[dict[str, list[str]]]:
    text = render_manifest(hub="https://hub", ca="ca", image="agent:1", cluster="edge", token="t")
    documents = [d for d in yaml.safe_load_all(text) if d]
    return next(d["rules"] for d in documents if d["kind"] == "ClusterRole")


def test_the_agent_has_these_rights_in_a_cluster_and_no_other() -> None:
    found = {}
    for rule in rules():
        what = ",".join(rule.get("nonResourceURLs") or rule["resources"])
        group = "".join(f"{g} " for g in rule.get("apiGroups", ()) if g)
        names = f" [{','.join(rule['resourceNames'])}]" if "resourceNames" in rule else ""
        found[f"{group}{what}{names}"] = ",".join(rule["verbs"])
    assert found == ALLOWED


def test_it_may_delete_no_namespace_but_its_own() -> None:
    for rule in rules():
        if "namespaces" in rule.get("resources", ()) and "delete" in rule["verbs"]:
            assert rule["resourceNames"] == ["herdsman-system"]


def test_it_may_keep_all_that_it_always_looks_for() -> None:
    plurals = {f"{kind.lower()}s" for _version, kind in BASE_KINDS}
    kept = next(rule for rule in rules() if "clusterroles" in rule.get("resources", ()))
    assert plurals == set(kept["resources"])
