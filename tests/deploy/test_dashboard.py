"""Grafana's dashboard and the alerts for Prometheus use only metrics that the daemon exposes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from configschema import parse
from proxy.forwarding.inflight import InFlight
from proxy.forwarding.modelcalls import CONTACT
from proxy.lifecycle.reloading import Reloader
from proxy.observing.counters import Metrics
from proxy.observing.prometheus import exposed
from supervisor import open_supervisor

DEPLOY = Path(__file__).parents[2] / "docs/deploy"
DASHBOARD = json.loads((DEPLOY / "grafana/llamadoze.json").read_text())
RULES = yaml.safe_load((DEPLOY / "prometheus/llamadoze.rules.yml").read_text())
OF_A_HISTOGRAM = re.compile("_(bucket|sum|count)$")


def expressions() -> Iterator[tuple[str, str]]:
    """Yield the title and the query of each of the dashboard's panels."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def alerts() -> list[dict[str, Any]]:
    return [rule for group in RULES["groups"] for rule in group["rules"]]


async def told() -> set[str]:
    """Return the names of all metrics that a daemon exposes."""
    async with open_supervisor(parse("models: {}").config, CONTACT) as supervisor:
        text = exposed(Metrics(), Reloader(None, supervisor), InFlight()).decode()
    return set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))


async def test_every_metric_of_the_dashboard_and_of_the_alerts_is_told() -> None:
    """A panel for a metric that does not exist would stay empty without an error."""
    known = await told()
    of_alerts = [rule["expr"] for rule in alerts()]
    for expression in (*(one for _, one in expressions()), *of_alerts):
        for name in re.findall(r"\b(?:llamadoze|process)_\w+", expression):
            assert {name, OF_A_HISTOGRAM.sub("", name)} & known, name


def test_every_panel_says_what_it_shows() -> None:
    """No panel overlaps another one either."""
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        assert panel["type"] == "row" or panel["description"], panel["title"]
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


def test_every_alert_says_what_to_do() -> None:
    """The alert names the model or the daemon that has the problem."""
    for rule in alerts():
        assert "$labels." in rule["annotations"]["summary"], rule["alert"]
        assert rule["annotations"]["description"].endswith(".")
        assert rule["labels"]["severity"] in ("critical", "warning", "info")


def test_every_alert_has_a_test() -> None:
    """Prometheus itself runs these tests, see `test_prometheus`."""
    text = (DEPLOY / "prometheus/llamadoze.rules.test.yml").read_text()
    tested = {
        one["alertname"]
        for case in yaml.safe_load(text)["tests"]
        for one in case["alert_rule_test"]
        if one.get("exp_alerts")
    }
    assert tested == {rule["alert"] for rule in alerts()}
