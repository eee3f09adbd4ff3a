"""A machine that vanishes silently, and a machine that is only slow."""

from __future__ import annotations

import errno
import json
import socket
import subprocess
import sys
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from configschema import Timeouts
from proxy.http import origin
from proxy.http.origin import MOST_PROBES, Origin, longest_silence, probes, until_silent
from tests.proxy.http.two_machines import NAMESPACES, SILENCE, WHILE, is_possible

LATE = 1.5  # seconds that a busy machine may add
GONE = f"nothing was heard from 10.77.0.2 for {SILENCE}s (timeouts.silence)"
needs_namespaces = pytest.mark.skipif(not is_possible(), reason="no network namespaces here")


@pytest.fixture(scope="module")
def outcomes() -> Any:
    """Return the outcomes of requests to a machine that was there and then vanished."""
    command = (*NAMESPACES, sys.executable, "-m", "tests.proxy.http.two_machines")
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return json.loads(said.stdout)


@needs_namespaces
@pytest.mark.parametrize(
    "moment", ["before the head", "in mid-answer", "in mid-upload", "on a kept connection"]
)
def test_a_machine_that_is_gone_fails_its_requests_in_time(outcomes: Any, moment: str) -> None:
    """No packet comes back, and no packet reports an error."""
    said, seconds = outcomes[moment]
    assert GONE in said
    assert seconds < SILENCE + LATE


@needs_namespaces
def test_a_machine_that_is_gone_is_not_reached_again(outcomes: Any) -> None:
    """Neither a new connection nor one that was kept idle reaches the machine."""
    for moment in ("on a new connection", "on one kept for longer"):
        assert "within 2s (timeouts.connect)" in outcomes[moment][0]


@needs_namespaces
@pytest.mark.parametrize("why", ["thinks", "reads late"])
def test_a_server_that_takes_longer_is_not_cut(outcomes: Any, why: str) -> None:
    """The server's system still answers, though no byte comes or none of a long body is read."""
    said, seconds = outcomes[why]
    assert said == "hi"
    assert seconds >= WHILE


@needs_namespaces
def test_an_address_that_nobody_has_is_said_to_be_one(outcomes: Any) -> None:
    """The error differs from that of a port without a listener."""
    said, _ = outcomes["nobody has the address"]
    assert said == "no connection to 10.77.0.9:8000: no route to host"


@given(st.integers(0, 10_000_000), st.integers(1, 2_000_000))
def test_the_probes_take_as_long_as_a_silence_may(keepalive: int, silence: int) -> None:
    """All numbers are in the range that the system accepts."""
    idle, every, count = probes(keepalive, silence)
    assert idle + every * count <= max(2, silence)
    assert 1 <= every <= 32767
    assert 1 <= idle <= 32767
    assert 1 <= count <= MOST_PROBES
    assert not keepalive or every <= max(keepalive, silence // MOST_PROBES + 1)


def test_the_usual_probes() -> None:
    """The first probe is after 30 s, and the next ones every 6 s."""
    assert probes(30, 60) == (30, 6, 5)


async def stay(_: trio.SocketStream) -> None:
    await trio.sleep_forever()


async def options(timeouts: Timeouts) -> tuple[int, int, int, int]:
    """Return the system's settings of a connection: the user timeout and the probes."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, stay, 0)
        port = listeners[0].socket.getsockname()[1]
        wire = await Origin("127.0.0.1", port).connect(timeouts)
        names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        idle, every, count = (wire.connection.getsockopt(socket.IPPROTO_TCP, it) for it in names)
        found = longest_silence(wire.connection), idle, every, count
        wire.close()
        nursery.cancel_scope.cancel()
        return found


async def test_a_server_on_this_machine_is_asked_as_ever() -> None:
    """Such a server cannot vanish without this system noticing."""
    assert (await options(Timeouts()))[:3] == (0, 30, 30)


async def test_a_server_elsewhere_has_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit applies to sent bytes and to probes."""
    monkeypatch.setattr(origin, "_is_elsewhere", lambda _: True)
    assert await options(Timeouts()) == (60_000, 30, 6, 5)
    without = await options(Timeouts(silence=0))  # type: ignore[arg-type] # a plain number
    assert without[:3] == (0, 30, 30)


async def test_while_a_long_body_is_sent_the_systems_own_limit_is_lifted() -> None:
    """The limit is restored afterwards, even after a cancellation."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as connection:
        connection.connect(listener.getsockname())
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 5000)
        with trio.move_on_after(0.05):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(until_silent, connection, 5000)
                await trio.sleep(0.01)
                assert longest_silence(connection) == 0
                await trio.sleep_forever()
        assert longest_silence(connection) == 5000


@pytest.mark.parametrize(
    ("number", "silence", "said"),
    [
        (errno.ETIMEDOUT, 60, "nothing was heard from h for 60s (timeouts.silence)"),
        (
            errno.EHOSTUNREACH,
            60,
            "nothing was heard from h for 60s, no route to host (timeouts.silence)",
        ),
        (errno.ETIMEDOUT, 0, "connection timed out"),
        (errno.ECONNRESET, 60, "connection reset by peer"),
    ],
)
def test_how_a_connection_broke_is_said(number: int, silence: int, said: str) -> None:
    """The error names the setting if a setting caused it."""
    timeouts = Timeouts(silence=silence)  # type: ignore[arg-type] # a plain number
    error = Origin("h", 1).broken(OSError(number, "x"), timeouts)
    assert str(error) == f"the connection to the model server broke: {said}"
