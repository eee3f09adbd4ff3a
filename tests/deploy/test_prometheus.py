"""Prometheus itself reads the configuration, the alerts with their tests, and every panel."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml

from tests.deploy.test_dashboard import DEPLOY, expressions
from tests.ports import free_port
from tests.proxy.daemon import stub
from tests.system.daemon import Process, started, wait_for, write

pytestmark = [
    pytest.mark.deploy,
    pytest.mark.skipif(not which("promtool"), reason="Prometheus is not installed"),
]
VARIABLES = {"$job": ".*", "$instance": ".*", "$model": ".*", "$__rate_interval": "10s"}
MAY_BE_EMPTY = {
    "Failures per minute",
    "Errors per minute, by code",
    "Requests per minute, by API key",
}
NEEDS_GPU = {
    "Memory that the last sleep freed",
    "Memory that the last sleep left",
    "Growth of what sleep leaves",
}


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    folder = DEPLOY / "prometheus"
    return subprocess.run(
        ["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "llamadoze.rules.yml"),
        ("test", "rules", "llamadoze.rules.test.yml"),
    ],
)
def test_prometheus_finds_no_fault(arguments: tuple[str, ...]) -> None:
    """Prometheus checks the configuration, the alerts, and what the alerts do over time."""
    checked = promtool(*arguments)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_metrics_are_in_the_form_that_prometheus_wants(tmp_path: Path) -> None:
    """The linter may complain about a library's metrics, but not about llamadoze's."""
    with started("--config", write(tmp_path, models={"a": stub(sleeps=True)})) as daemon:
        assert daemon.chat("a")[0] == 200
        text = daemon.ask("GET", "/metrics")[1]
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, check=False
    )
    assert "llamadoze_" not in checked.stderr.decode()


@contextmanager
def prometheus(folder: Path, daemon: Process) -> Iterator[int]:
    """Run a Prometheus that scrapes a daemon twice a second; yield its port."""
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    config["rule_files"] = [str(DEPLOY / "prometheus/llamadoze.rules.yml")]
    (job,) = config["scrape_configs"]
    job["static_configs"] = [{"targets": [f"127.0.0.1:{daemon.port}"]}]
    file, port = folder / "prometheus.yml", free_port(1)
    file.write_text(yaml.safe_dump(config))
    with (
        (folder / "prometheus.log").open("w") as log,
        subprocess.Popen(
            [
                "prometheus",
                f"--config.file={file}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stderr=log,
        ) as server,
    ):
        try:
            yield port
        finally:
            server.terminate()


def ask(port: int, query: str) -> list[dict[str, Any]]:
    """Return the results of a query."""
    url = f"http://127.0.0.1:{port}/api/v1/query?{urlencode({'query': query})}"
    with urlopen(url) as reply:
        return list(json.loads(reply.read())["data"]["result"])


def scraped(port: int) -> bool:
    try:
        return bool(ask(port, "llamadoze_build_info"))
    except (URLError, ConnectionError):
        return False


def filled(expression: str) -> str:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def test_every_panel_has_data_of_a_daemon_whose_models_take_turns(tmp_path: Path) -> None:
    """Prometheus answers the dashboard's own queries."""
    models = {"a": stub(sleeps=True), "b": stub(sleeps=True)}
    with (
        started("--config", write(tmp_path, models=models)) as daemon,
        prometheus(tmp_path, daemon) as port,
    ):
        wait_for(lambda: scraped(port))
        for _ in range(8):
            for model in ("a", "b"):
                assert daemon.chat(model)[0] == 200
            time.sleep(0.3)
        time.sleep(1.5)
        found = [(title, ask(port, filled(one))) for title, one in expressions()]
        firing = ask(port, 'ALERTS{alertstate="firing"}')
    empty = {title for title, rows in found if not rows}
    assert empty - MAY_BE_EMPTY - NEEDS_GPU == set()
    numbers = [row["value"][1] for title, rows in found for row in rows if "mean" in title]
    assert numbers
    assert all(re.fullmatch(r"[\d.e-]+", number) for number in numbers)
    assert firing == []
