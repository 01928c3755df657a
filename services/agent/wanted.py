"""What the parts of the desired set say of an object or of a namespace: for the watches, which ask at each event. Pure."""

from __future__ import annotations

from libs.common.kube.objects import Document, Ref, labels_of, ref_of
from services.agent.claims import PROJECT, Claim, find_marks, is_adorned, is_claim, is_order, parse_claim
from services.agent.diff import is_met
from services.agent.enforce import Parts, all_claims
from services.agent.owned import mark, part_label
from services.agent.pod_security import plan_levels, read_orders, with_level


class Wanted:
    """Of one desired set; it is looked through once, when it came."""

    def __init__(self, parts: Parts) -> None:
        self._orders = read_orders(parts)
        self._claims: dict[str, Claim] = {}
        self._levelled = {claim.namespace: (claim, level) for claim, level in all_claims(parts)}
        self._objects: dict[Ref, tuple[str, Document]] = {}
        self._parts_with: dict[str, dict[str, None]] = {}
        for name, (_hash, objects) in parts.items():
            for document in objects:
                namespace = str((document.get("metadata") or {}).get("namespace") or "")
                if is_claim(document):
                    claim = with_level(parse_claim(document, name), self._orders)
                    self._claims[claim.namespace] = claim
                    namespace = claim.namespace
                elif not is_order(document):
                    self._objects.setdefault(ref_of(document), (name, document))
                if namespace:
                    self._parts_with.setdefault(namespace, {})[part_label(name)] = None

    def is_as_it_should_be(self, ref: Ref, found: Document) -> bool:
        """Whether an object that a part wants is what the part wants."""
        known = self._objects.get(ref)
        if known is None:
            return False
        name, document = known
        return is_met({"apiVersion": ref.api_version, "kind": ref.kind, **found}, mark(document, name))

    def find_tampered(self, found: Document) -> list[str]:
        """Label values of the parts by which a namespace is not as it should be, once for each reason."""
        name = str((found.get("metadata") or {}).get("name") or "")
        claim = self._claims.get(name)
        labels: list[str] = []
        if claim is not None and not is_adorned(claim, found):
            labels.append(claim.part)
        elif claim is None and find_marks(found):
            labels.append(part_label(f"projects/{labels_of(found).get(PROJECT, '')}"))
        if self._orders:
            levelled = self._levelled.get(name)
            steps = plan_levels(self._orders, {name: found}, () if levelled is None else (levelled,))
            labels += [step.part for step in steps]
        return labels

    def parts_with(self, namespace: str) -> list[str]:
        """Label values of the parts that claim a namespace or have objects in it."""
        return list(self._parts_with.get(namespace, ()))
