"""Many clients at once: how fast they are accepted, and how many may be open."""

from __future__ import annotations

import resource
from collections import Counter

import pytest
import trio

from proxy.http import listening
from proxy.http.exchange import Exchange
from proxy.http.listening import AT_ONCE, Connections
from tests.proxy.serving import ASK, serving

MOST = 5


class Turns(trio.abc.Instrument):
    """Counts the turns of the scheduler."""

    now = 0

    def before_io_wait(self, timeout: float) -> None:
        self.now += 1


async def say_hello(exchange: Exchange) -> None:
    await exchange.say(200, [], b"hello")


async def hear_hello(client: trio.SocketStream) -> None:
    with trio.fail_after(10):
        await client.send_all(ASK)
        assert (await client.receive_some()).endswith(b"\r\n\r\nhello")


async def test_those_who_wait_are_taken_in_few_turns_and_all_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With one client per turn, the last client of a burst would wait for as many turns."""
    turns, taken, real = Turns(), Counter[int](), Connections.opened

    def opened(self: Connections) -> None:
        taken[turns.now] += 1
        real(self)

    monkeypatch.setattr(Connections, "opened", opened)
    trio.lowlevel.add_instrument(turns)
    async with serving(say_hello, waiting=200) as served, trio.open_nursery() as nursery:
        for client in served.clients:
            nursery.start_soon(hear_hello, client)
    trio.lowlevel.remove_instrument(turns)
    assert sorted(taken.values()) == [200 % AT_ONCE, *[AT_ONCE] * (200 // AT_ONCE)]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Allow few open connections; return the number of open connections at each new connection."""
    counts, real = [], Connections.opened

    def opened(self: Connections) -> None:
        real(self)
        counts.append(self.most - self.room)

    monkeypatch.setattr(resource, "getrlimit", lambda _: (2 * MOST, 2 * MOST))
    monkeypatch.setattr(listening, "LEAST", MOST)
    monkeypatch.setattr(Connections, "opened", opened)
    return counts


async def test_there_are_never_more_than_there_may_be(few: list[int]) -> None:
    """Each client that disconnects makes room for the next waiting client."""

    async def visit(client: trio.SocketStream) -> None:
        await hear_hello(client)
        await client.aclose()

    async with serving(say_hello, waiting=50) as served, trio.open_nursery() as nursery:
        for client in served.clients:
            nursery.start_soon(visit, client)
    assert (len(few), max(few)) == (50, MOST)


async def test_an_idle_one_goes_for_one_that_waits_and_a_busy_one_stays(few: list[int]) -> None:
    """The connection that has been idle longest is closed."""
    goes_on = trio.Event()

    async def handle(exchange: Exchange) -> None:
        if exchange.path == "/slow":
            await goes_on.wait()
        await say_hello(exchange)

    async with serving(handle, waiting=MOST) as served:
        busy, oldest, *others = served.clients
        await busy.send_all(ASK.replace(b"/", b"/slow", 1))
        for client in (oldest, *others):
            await hear_hello(client)
            await trio.sleep(0.05)
        await trio.sleep(listening.NEW)
        served.clients.append(newest := await served.connect())
        await hear_hello(newest)
        assert await oldest.receive_some() == b""
        await hear_hello(others[-1])
        goes_on.set()
        assert (await busy.receive_some()).endswith(b"hello")
    assert max(few) == MOST
