"""The front door's own metrics, as a scrape shows them."""

from __future__ import annotations

from libs.common.observe import metrics
from services.auth_proxy.figures import Figures


def shown(name: str, **labels: str) -> float:
    return metrics.registry().get_sample_value(name, labels) or 0.0


def test_a_call_is_counted_in_its_bucket_and_all_above():
    labels = {"target": "cluster", "verb": "patch", "status": "2xx"}
    before = [shown("herdsman_call_seconds_bucket", le=bound, **labels) for bound in ("0.001", "0.005", "+Inf")]
    Figures().observe(True, "patch", 201, 0.004, 7, 9)
    after = [shown("herdsman_call_seconds_bucket", le=bound, **labels) for bound in ("0.001", "0.005", "+Inf")]
    assert [a - b for a, b in zip(after, before, strict=True)] == [0, 1, 1]
    assert shown("herdsman_call_seconds_count", **labels) >= 1


def test_bytes_add_up():
    before = shown("herdsman_call_bytes_total", direction="out")
    figures = Figures()
    for _ in range(3):
        figures.observe(False, "get", 200, 0.1, 0, 100)
    assert shown("herdsman_call_bytes_total", direction="out") - before == 300


def test_made_up_methods_share_one_label_and_take_no_memory():
    figures = Figures()
    for number in range(1000):
        figures.observe(True, f"made-up-{number}", 405, 0.1, 0, 0)
    assert len(figures._series) == 0
    assert b"made-up" not in metrics.render()
    assert shown("herdsman_call_seconds_count", target="cluster", verb="other", status="4xx") >= 1000


def test_the_whole_exposition_renders():
    Figures().observe(True, "get", 200, 0.1, 0, 0)
    assert b"herdsman_call_seconds_bucket" in metrics.render()
