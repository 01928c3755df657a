"""Applying the hub's import manifest to a cluster that a kubeconfig reaches. Used by `herdsman cluster import --kubeconfig`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import yaml

from libs.common import errors
from libs.common.kube.client import KubeClient
from libs.common.kube.discovery import Discovery
from libs.common.kube.kubeconfig import load_kubeconfig
from libs.common.kube.objects import ref_of

_MANAGER = "herdsman-import"


def apply_manifest(manifest: bytes, kubeconfig: Path, context: str) -> list[str]:
    """Server-side apply of each object in the order written; returns what was applied. Raises a family of errors."""
    documents = parse_manifest(manifest)
    endpoint = load_kubeconfig([kubeconfig.expanduser()], context)
    return asyncio.run(_apply(documents, KubeClient(endpoint, user_agent="herdsman-cli")))


def parse_manifest(manifest: bytes) -> list[dict[str, Any]]:
    """The objects of a YAML stream. Raises Unavailable when it is none: then it is not a manifest of the hub."""
    try:
        documents = [d for d in yaml.safe_load_all(manifest) if d is not None]
        for document in documents:
            ref_of(document)
    except (yaml.YAMLError, ValueError, AttributeError) as error:
        raise errors.Unavailable(
            "the hub's import manifest cannot be read: check that hub and herdsman have the same version"
        ) from error
    if not documents:
        raise errors.Unavailable(
            "the hub's import manifest is empty: check that hub and herdsman have the same version"
        )
    return documents


async def _apply(documents: list[dict[str, Any]], client: KubeClient) -> list[str]:
    async with client:
        discovery = Discovery(client)
        applied: list[str] = []
        for document in documents:
            ref = ref_of(document)
            try:
                await client.apply(await discovery.path(ref), document, manager=_MANAGER)
            except errors.HerdsmanError as error:
                done = (
                    f" ({len(applied)} of {len(documents)} objects are there; run the same command again)"
                    if applied
                    else ""
                )
                raise type(error)(f"{error.message}{done}", causes=error.causes) from error
            applied.append(f"{ref.kind}/{ref.name}")
    return applied
