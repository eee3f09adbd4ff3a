"""Edge-triggered events: each is reported once, to the task that waits for the socket."""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from proxy.http.exchange import LOST
from proxy.http.readable import HAS_EPOLL, Edge, Edges, Watch, watch
from proxy.http.wire import Plain

pytestmark = pytest.mark.skipif(not HAS_EPOLL, reason="needs Linux")

TOLD = 0.05  # seconds in which an event is reported
Pair = tuple[socket.socket, socket.socket]


@contextmanager
def pairs(count: int = 1) -> Iterator[list[Pair]]:
    """Return connected sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    found = [socket.socketpair() for _ in range(count)]
    for pair in found:
        for one in pair:
            one.setblocking(False)
    yield found
    for pair in found:
        for one in pair:
            one.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def pair() -> Iterator[Pair]:
    with pairs() as found:
        yield found[0]


async def is_told(watched: Watch) -> bool:
    """Return whether a wait ends soon."""
    with trio.move_on_after(TOLD) as scope:
        await watched.wait()
    return not scope.cancelled_caught


async def test_what_comes_between_a_read_and_the_wait_is_not_missed(pair: Pair) -> None:
    """An event without a waiting task is remembered for one wait."""
    here, there = pair
    watched = watch(here)
    there.send(b"one")
    assert await is_told(watched)
    assert here.recv(9) == b"one"
    there.send(b"two")
    await trio.sleep(TOLD)
    assert watched.has_told
    assert await is_told(watched)
    assert here.recv(9) == b"two"
    assert not await is_told(watched)


async def test_what_came_before_it_was_watched_is_told(pair: Pair) -> None:
    """A request may have arrived before its connection was accepted."""
    here, there = pair
    there.send(b"one")
    assert await is_told(watch(here))


async def test_an_end_that_comes_with_the_last_bytes_is_not_waited_for(pair: Pair) -> None:
    """The system reports both at once, and does not repeat the report."""
    here, there = pair
    watched = watch(here)
    there.send(b"one")
    there.close()
    for expected in (b"one", b"", b""):
        assert await is_told(watched)
        assert here.recv(9) == expected


async def test_a_reset_is_told_as_an_end() -> None:
    """The next read raises the error."""
    listener = socket.create_server(("127.0.0.1", 0))
    there = socket.create_connection(listener.getsockname())
    here, _ = listener.accept()
    wire = Plain.connected(here)
    there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    with trio.fail_after(5):
        with trio.move_on_after(TOLD):
            await wire.receive()
        there.close()
        with pytest.raises(ConnectionResetError):
            await wire.receive()
        assert await wire.receive() == b""
    wire.close()
    listener.close()


async def test_a_cancelled_wait_loses_nothing(pair: Pair) -> None:
    """An event after a cancelled wait is still reported."""
    here, there = pair
    watched = watch(here)
    assert not await is_told(watched)
    there.send(b"one")
    await trio.sleep(TOLD)
    assert await is_told(watched)


@pytest.mark.parametrize("first", ["told", "cancelled"])
async def test_what_is_told_in_the_step_of_a_cancellation_is_not_lost(
    pair: Pair, first: str
) -> None:
    """Either this wait or the next wait returns."""
    here, _ = pair
    edge, told = watch(here), 0
    assert isinstance(edge, Edge)

    async def wait() -> None:
        nonlocal told
        with scope:
            await edge.wait()
            told += 1

    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        if first == "cancelled":
            scope.cancel()
        edge.tell(0)
        scope.cancel()
    assert told + edge.has_told == 1


async def test_reads_that_are_cancelled_again_and_again_get_every_byte(pair: Pair) -> None:
    """The bytes arrive in order, each exactly once."""
    here, there = pair
    wire, sent, read = Plain(here), b"".join(b"%06d" % n for n in range(2000)), b""

    async def send() -> None:
        for start in range(0, len(sent), 100):
            there.send(sent[start : start + 100])
            await trio.sleep(0.001 * (start % 3))

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            while len(read) < len(sent):
                with trio.move_on_after(0.0005):
                    read += await wire.receive()
    assert read == sent
    wire.close()


async def test_who_waits_for_what_is_closed_gets_an_error(pair: Pair) -> None:
    """The error comes at once, and also for waits after the close."""
    wire = Plain(pair[0])

    async def read() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await wire.receive()

    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await wait_all_tasks_blocked()
            wire.close()
        with pytest.raises(LOST):
            await wire.receive()


async def test_a_number_that_is_used_again_wakes_nobody_wrong(pair: Pair) -> None:
    """Descriptors are numbers, and the system reuses the lowest free number."""
    old, woken = Plain(pair[0]), []
    number = pair[0].fileno()

    async def wait(name: str, watched: Watch) -> None:
        try:
            await watched.wait()
        except trio.ClosedResourceError:
            name += " closed"
        woken.append(name)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, "old", old._watch)
            await wait_all_tasks_blocked()
            pair[1].send(b"x")
            old.close()
            with pairs() as [(here, there)]:
                assert here.fileno() == number
                new = Plain(here)
                old.close()  # a second close, which must not end the new socket
                nursery.start_soon(wait, "new", new._watch)
                await trio.sleep(TOLD)
                assert woken == ["old closed"]
                there.send(b"y")
                await trio.sleep(TOLD)
                assert woken == ["old closed", "new"]
                new.close()


async def test_what_is_closed_without_a_word_leaves_its_number_to_the_next(pair: Pair) -> None:
    """The system forgets the closed socket; the new socket with its number gets its own events."""
    here, _ = pair
    number = here.fileno()
    before = watch(here)
    here.close()
    with pairs() as [(other, there)]:
        assert other.fileno() == number
        watched = watch(other)
        there.send(b"x")
        assert await is_told(watched)
        assert not before.has_told


async def test_a_call_comes_once(pair: Pair) -> None:
    """For another call, the callback must be set again."""
    here, there = pair
    watched, calls = watch(here), []
    watched.call(lambda: calls.append(1))
    for _ in range(2):
        there.send(b"x")
        await trio.sleep(TOLD)
        assert calls == [1]
    watched.call(lambda: calls.append(2))
    assert calls == [1, 2]


async def test_a_call_comes_at_once_if_something_was_told(pair: Pair) -> None:
    """The same event does not cause a second call."""
    here, there = pair
    watched, calls = watch(here), []
    there.send(b"x")
    await trio.sleep(TOLD)
    watched.call(lambda: calls.append(1))
    assert calls == [1]
    watched.call(lambda: calls.append(2))
    await trio.sleep(TOLD)
    assert calls == [1]


async def test_a_call_that_was_called_off_never_comes(pair: Pair) -> None:
    """None, a wait or the end of the watch cancels the callback."""
    here, there = pair
    watched, calls = watch(here), []
    watched.call(lambda: calls.append("none"))
    watched.call(None)
    there.send(b"x")
    await trio.sleep(TOLD)
    assert not calls
    assert await is_told(watched)
    watched.call(lambda: calls.append("wait"))
    assert not await is_told(watched)
    there.send(b"x")
    await trio.sleep(TOLD)
    assert await is_told(watched)
    watched.call(lambda: calls.append("end"))
    watched.end()
    there.send(b"x")
    await trio.sleep(TOLD)
    assert not calls


async def test_a_call_is_not_for_what_was_read_before_it_was_told(pair: Pair) -> None:
    """A read may return bytes whose event comes only later."""
    here, there = pair
    wire, calls = Plain(here), []
    there.send(b"x")
    assert await wire.receive() == b"x"
    wire.call(lambda: calls.append(1))
    await trio.sleep(TOLD)
    assert not calls
    there.send(b"y")
    await trio.sleep(TOLD)
    assert calls == [1]
    assert await wire.receive() == b"y"
    wire.close()


async def test_a_call_comes_at_once_for_what_a_read_has_left(pair: Pair) -> None:
    """No new event would report bytes that a read has left in the socket."""
    here, there = pair
    here.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    there.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    wire, calls = Plain(here), []
    there.send(b"x" * 100_000)
    assert len(await wire.receive()) == 65536
    wire.call(lambda: calls.append(1))
    assert calls == [1]
    assert len(await wire.receive()) == 100_000 - 65536
    wire.close()


async def test_a_call_comes_for_an_end(pair: Pair) -> None:
    """This is how the daemon notices that a client that waits for a model has disconnected."""
    here, there = pair
    wire, calls = Plain(here), []
    with trio.move_on_after(TOLD):
        await wire.receive()
    wire.call(lambda: calls.append(1))
    there.close()
    await trio.sleep(TOLD)
    assert calls == [1]
    assert await wire.receive() == b""
    wire.close()


async def test_thousands_become_readable_at_once() -> None:
    """One poll of epoll does not return all of them, but each is reported exactly once."""
    told: list[int] = []

    async def wait(number: int, watched: Watch) -> None:
        await watched.wait()
        told.append(number)

    with pairs(1500) as found, trio.fail_after(20):
        watches = [watch(here) for here, _ in found]
        async with trio.open_nursery() as nursery:
            for number, watched in enumerate(watches):
                nursery.start_soon(wait, number, watched)
            await wait_all_tasks_blocked()
            for _, there in found:
                there.send(b"x")
        assert sorted(told) == list(range(1500))
        assert not any(watched.has_told for watched in watches)


async def test_thousands_end_at_once() -> None:
    """Each end is reported, with or without a waiting task."""
    with pairs(1500) as found, trio.fail_after(20):
        watches = [watch(here) for here, _ in found]
        for _, there in found:
            there.close()
        for watched in watches:
            await watched.wait()
        assert all(here.recv(1) == b"" for here, _ in found)
        for watched in watches:
            watched.end()


def test_each_run_of_trio_has_its_own() -> None:
    """Sockets left open by one run do not affect the next run, and no descriptor remains open."""

    async def read_one() -> Plain:
        wire = Plain(here)
        there.send(b"x")
        with trio.fail_after(1):
            assert await wire.receive() == b"x"
        return wire

    before = len(os.listdir("/proc/self/fd"))
    with pairs() as [(here, there)]:
        left = [trio.run(read_one) for _ in range(2)]
        for wire in left:
            wire._watch.end()  # its run has ended, so nothing watches the socket any more
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_call_that_fails_harms_nobody_else(
    pair: Pair, log_lines: list[dict[str, object]]
) -> None:
    """The log reports the fault, and all sockets go on getting events, the failing one too."""

    def fail() -> None:
        raise RuntimeError("a fault of ours")

    here, there = pair
    with pairs() as [(other, its_peer)]:
        failing, sound = watch(here), watch(other)
        failing.call(fail)
        there.send(b"x")
        its_peer.send(b"x")
        assert await is_told(sound)
        there.send(b"x")
        assert await is_told(failing)
    assert len(log_lines) == 1
    assert log_lines[0]["log_level"] == "error"


async def test_beyond_the_systems_limit_of_watches_trio_waits(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sockets beyond ``fs.epoll.max_user_watches`` are served without epoll."""
    here, there = pair
    watched = watch(here)
    assert isinstance(watched, Edge)
    assert watched.tells
    edges: Edges = watched._edges

    class Full:
        def register(self, *_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pairs() as [(other, its_peer)]:
        with monkeypatch.context() as patch:
            patch.setattr(edges, "_epoll", Full())
            wire = Plain(other)
        assert other.fileno() not in edges._known
        assert not wire.tells
        its_peer.send(b"one")
        with trio.fail_after(1):
            assert await wire.receive() == b"one"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wire.receive)
                await wait_all_tasks_blocked()
                its_peer.send(b"two")
        wire.close()
    there.send(b"x")
    assert await is_told(watched)
