"""Quantities mean here what they mean to a real API server: hundreds of generated texts, taken or refused alike, and with the same value."""

from __future__ import annotations

import random

import pytest

from libs.common import errors
from libs.common.kube.client import KubeClient
from libs.common.quantity import MAX_NANOS, format_quantity, parse_quantity

pytestmark = [pytest.mark.kubelab, pytest.mark.timeout(120)]
PATH = "/api/v1/namespaces/default/resourcequotas"
MILLI = 10**6
SUFFIXES = (
    "",
    "n",
    "u",
    "m",
    "k",
    "M",
    "G",
    "T",
    "Ki",
    "Mi",
    "Gi",
    "Ti",
    "e1",
    "e-2",
    "E2",
    "e+3",
    "K",
    "mi",
    "e",
    "E",
    "Mb",
)


def generate(count: int, seed: int = 5) -> list[str]:
    """Texts near the grammar, most of them in it."""
    pick = random.Random(seed)
    texts = []
    for _ in range(count):
        whole = str(pick.choice([0, 1, 7, 42, 999, 1000, 1024, 123456, pick.randrange(10**6)]))
        dot = pick.choice(["", "", "", ".", f".{pick.randrange(1000)}", f".{pick.randrange(10**12):012}"])
        texts.append(pick.choice(["", "", "", "+", "0", "."]) + whole + dot + pick.choice(SUFFIXES))
    # What is larger than a server's highest number it cuts to that, and Herdsman refuses it: the hermetic tests have that.
    return sorted(text for text in set(texts) if not (text.endswith("E") and len(text) > 2))


async def test_an_api_server_takes_the_same_texts_and_means_the_same(client: KubeClient) -> None:
    taken = refused = 0
    for text in generate(400):
        document = {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "tried"},
            "spec": {"hard": {"limits.memory": text}},
        }
        try:
            answer = await client.create(PATH, document, {"dryRun": "All"})
        except errors.HerdsmanError:
            refused += 1
            with pytest.raises(ValueError, match="must be a quantity"):
                parse_quantity(text)
            continue
        taken += 1
        # In lists of resources an API server rounds up to thousandths; what is finer is refused in a project.
        parsed, shown = parse_quantity(text), answer["spec"]["hard"]["limits.memory"]
        meant = -(-parsed.nanos // MILLI) * MILLI
        assert meant == parse_quantity(shown).nanos <= MAX_NANOS, f"{text} is shown as {shown}"
        assert parse_quantity(format_quantity(meant, binary=parsed.binary)).nanos == meant
    print(f"{taken} taken, {refused} refused")
    assert taken > 150
    assert refused > 30
