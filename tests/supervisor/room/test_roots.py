"""The processes that models' memory is counted from, and when a server is asked for its own."""

from __future__ import annotations

import attrs
import pytest
import trio
from trio.testing import MockClock

from supervisor.room.roots import ASKED_AGAIN, LONGEST_QUESTION, Roots


@attrs.define
class FakeServer:
    """A server whose root is told after some seconds."""

    life: object = "first"
    pid: int | None = 7
    takes: float = 0
    asked: int = 0

    async def root(self) -> int | None:
        self.asked += 1
        await trio.sleep(self.takes)
        return self.pid


async def test_a_server_is_asked_once_for_each_of_its_lives(autojump_clock: MockClock) -> None:
    """A root of an earlier life belongs to nobody, or to a stranger by now."""
    server = FakeServer()
    roots = Roots({"a": server})
    for _ in range(3):
        assert await roots.now() == {"a": 7}
        await trio.sleep(60)
    assert server.asked == 1
    server.life, server.pid = "second", 8
    assert await roots.now() == {"a": 8}
    assert (roots.of("a"), server.asked) == (8, 2)


async def test_a_root_that_cannot_be_seen_is_asked_for_again_after_a_while(
    autojump_clock: MockClock,
) -> None:
    """An engine may start a container's process later than its own client."""
    server = FakeServer(pid=None)
    roots = Roots({"a": server})
    assert await roots.now() == {}
    server.pid = 9
    await trio.sleep(ASKED_AGAIN - 1)
    assert (await roots.now(), server.asked) == ({}, 1)
    await trio.sleep(1)
    assert await roots.now() == {"a": 9}


async def test_a_server_that_has_ended_has_no_root(autojump_clock: MockClock) -> None:
    """llamadoze does not ask it."""
    server = FakeServer()
    roots = Roots({"a": server})
    await roots.now()
    server.life = None
    assert (await roots.now(), roots.of("a"), server.asked) == ({}, None, 1)


async def test_an_engine_that_hangs_delays_a_look_by_two_seconds(
    autojump_clock: MockClock,
) -> None:
    """All servers are asked at the same time, and the answers of the others count."""
    stuck = {name: FakeServer(takes=100) for name in "abc"}
    roots = Roots({**stuck, "d": FakeServer()})
    began = trio.current_time()
    assert await roots.now() == {"d": 7}
    assert trio.current_time() - began == pytest.approx(LONGEST_QUESTION)


async def test_a_server_may_come_or_go_while_another_is_asked(autojump_clock: MockClock) -> None:
    """A reload may add or remove a server; the next answer has the servers that are there then."""
    servers = {"a": FakeServer(takes=1), "b": FakeServer(pid=8)}
    roots = Roots(servers)
    found: list[dict[str, int]] = []

    async def ask() -> None:
        found.append(await roots.now())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.sleep(0.5)
        del servers["b"]
        servers["c"] = FakeServer(pid=9)
    assert found[0]["a"] == 7
    assert await roots.now() == {"a": 7, "c": 9}
    assert roots.of("b") is None


async def test_a_life_that_ends_while_it_is_asked_for_is_asked_for_again(
    autojump_clock: MockClock,
) -> None:
    """The answer belongs to the life that was asked."""
    server = FakeServer(takes=1)
    roots = Roots({"a": server})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(roots.now)
        await trio.sleep(0.5)
        server.life, server.pid = "second", 8
    assert await roots.now() == {"a": 8}
    assert server.asked == 2
