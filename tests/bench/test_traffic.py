"""The benchmark's model server and load generator against each other, without a proxy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.bench import traffic_client
from tests.bench.traffic_targets import SERVER, listens
from tests.ports import free_port
from tests.system.daemon import wait_for


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A model server in its own process."""
    port = free_port(1)
    command = [sys.executable, "-I", "-S", str(SERVER), "--port", str(port)]
    with subprocess.Popen(command) as process:
        try:
            wait_for(lambda: listens(port))
            yield port
        finally:
            process.terminate()


def test_requests_are_answered_and_counted(port: int) -> None:
    figures = traffic_client.requests(port, 4, 0.2)
    assert figures["errors"] == 0
    assert figures["count"] > 50
    assert 0 < figures["latency_p50"] <= figures["latency_p99"] < 0.2


def test_streams_keep_their_rate_and_arrive_whole(port: int) -> None:
    """Each token arrives just after it was sent."""
    figures = traffic_client.streams(port, 8, 100, 0.3)
    assert figures["errors"] == 0
    assert figures["count"] == 8 * 30
    assert 500 < figures["per_second"] < 1100
    assert 0 < figures["delay_p50"] <= figures["delay_p99"] < 0.1
    assert 0 < figures["head_p50"] <= figures["event_p50"] < 0.1


@pytest.mark.parametrize("silent", [False, True])
def test_the_server_tells_when_its_clients_left(port: int, silent: bool) -> None:
    figures = traffic_client.disconnects(port, port, 2, silent)
    assert figures["errors"] == 0
    assert 0 < figures["noticed_p50"] <= figures["noticed_max"] < 0.1
