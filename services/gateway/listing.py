"""A list in the form that the client asked for: as it is, as a Table, or as metadata alone. `api` and `token_lists` answer with it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from libs.common.apiserver.table import render_partial, render_table
from libs.common.resources.meta import API_VERSION
from libs.common.resources.registry import ResourceType
from services.gateway.negotiate import Form


class Listing:
    """`envelope` is the list without its items, which go under `field`; `item` renders one. `metadata` is that of the list."""

    def __init__(
        self, rtype: ResourceType, form: Form, include: str, now: datetime, metadata: Mapping[str, Any]
    ) -> None:  # fmt: skip
        self._rtype, self._form, self._include, self._now = rtype, form, include, now
        self.field = "rows" if form.kind == "Table" else "items"
        if form.kind == "Table":
            table = self._table([], with_columns=True)
            self.envelope = {**{k: v for k, v in table.items() if k != "rows"}, "metadata": dict(metadata)}
        elif form.kind:
            self.envelope = {
                "kind": f"{form.kind}List", "apiVersion": f"meta.k8s.io/{form.version}", "metadata": metadata
            }  # fmt: skip
        else:
            self.envelope = {"kind": f"{rtype.kind}List", "apiVersion": API_VERSION, "metadata": metadata}

    def item(self, document: Mapping[str, Any]) -> Mapping[str, Any]:
        if self._form.kind == "Table":
            row: Mapping[str, Any] = self._table([document], with_columns=False)["rows"][0]
            return row
        return render_partial(document, self._form.version) if self._form.kind else document

    def _table(self, documents: list[Mapping[str, Any]], *, with_columns: bool) -> dict[str, Any]:
        return render_table(
            self._rtype,
            documents,
            {},
            self._now,
            include=self._include,
            version=self._form.version,
            with_columns=with_columns,
        )
