"""Many clients that come at once: how they are taken, and how many there are."""

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
    """Counts the scheduler's turns."""

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
    """Not one in each: the last of a burst would wait for as many turns as there are before it."""
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
    """Let few connections be open; return how many were, each time that one more was opened."""
    counts, real = [], Connections.opened

    def opened(self: Connections) -> None:
        real(self)
        counts.append(self.most - self.room)

    monkeypatch.setattr(resource, "getrlimit", lambda _: (2 * MOST, 2 * MOST))
    monkeypatch.setattr(listening, "LEAST", MOST)
    monkeypatch.setattr(Connections, "opened", opened)
    return counts


async def test_there_are_never_more_than_there_may_be(few: list[int]) -> None:
    """However many wait; whoever leaves makes room for the next ones."""

    async def visit(client: trio.SocketStream) -> None:
        await hear_hello(client)
        await client.aclose()

    async with serving(say_hello, waiting=50) as served, trio.open_nursery() as nursery:
        for client in served.clients:
            nursery.start_soon(visit, client)
    assert (len(few), max(few)) == (50, MOST)


async def test_an_idle_one_goes_for_one_that_waits_and_a_busy_one_stays(few: list[int]) -> None:
    """Of the idle ones that which has been so for longest."""
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
