"""A connected socket that avoids Trio's checkpoints where it can."""

from __future__ import annotations

import errno
import socket
import ssl
from contextlib import suppress

import pytest
import trio

from proxy.http.wire import READ_SIZE, Plain, _of_system, words_of
from proxy.observing.logbook import MOST_UNREAD, LogBook


def pair() -> tuple[Plain, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return Plain(ours), theirs


async def test_bytes_come_as_they_arrived_and_then_the_end() -> None:
    """Bytes that are already there are returned at once."""
    wire, other = pair()
    other.sendall(b"one")
    assert await wire.receive() == b"one"
    assert wire.is_quiet()
    other.sendall(b"two")
    assert not wire.is_quiet()
    other.close()
    assert [await wire.receive(), await wire.receive()] == [b"two", b""]
    wire.close()


async def test_a_read_that_is_cancelled_takes_nothing() -> None:
    """No byte is lost, in whichever turn the cancellation comes."""
    wire, other = pair()
    other.setblocking(False)
    sent = taken = 0
    for _ in range(300):
        with suppress(BlockingIOError):
            sent += other.send(b"x" * READ_SIZE)
        with trio.CancelScope() as scope:
            scope.cancel()
            for _ in range(100):
                taken += len(await wire.receive())
    other.close()
    while data := await wire.receive():
        taken += len(data)
    assert taken == sent
    wire.close()


async def test_who_waits_learns_that_it_was_closed() -> None:
    """Both a waiting read and a waiting write raise an error."""
    wire, other = pair()

    async def read() -> None:
        with pytest.raises((OSError, trio.ClosedResourceError)):
            await wire.receive()

    async def write() -> None:
        with pytest.raises((OSError, trio.ClosedResourceError)):
            await wire.send(b"x" * 10_000_000)

    with trio.fail_after(2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            nursery.start_soon(write)
            await trio.sleep(0.05)
            wire.close()
    other.close()


async def test_one_that_is_always_ready_lets_others_in() -> None:
    """A connection that never has to wait yields regularly to other tasks."""
    wire, other = pair()
    other.sendall(b"x" * 100_000)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        for _ in range(200):
            await wire.send(b"y")
        nursery.cancel_scope.cancel()
    assert turns >= 2
    other.close()
    wire.close()


async def test_a_reader_of_the_log_that_is_too_slow_is_told_what_it_missed() -> None:
    """The reader gets the number once, and does not have to wait for the next line."""
    book = LogBook()
    with book.followed("proxy") as reader:
        for _ in range(MOST_UNREAD // 1024 + 3):
            book.keep(b"x" * 1023 + b"\n")
        text = await reader.read()
        assert text[MOST_UNREAD:] == b"\n[3072 bytes dropped: this reader is too slow]\n"
        book.keep(b"again\n")
        assert await reader.read() == b"again\n"


async def test_what_was_missed_is_said_where_it_is_missing() -> None:
    """A short line may have room where a long one had none; at the end, nothing is counted."""
    book = LogBook()
    with book.followed("proxy") as reader:
        book.keep(b"x" * (MOST_UNREAD - 100))
        book.keep(b"y" * 200)
        book.keep(b"short\n")
        book.close()
        book.keep(b"z" * 200)
        text = await reader.read()
    notice = b"\n[200 bytes dropped: this reader is too slow]\n"
    assert text[MOST_UNREAD - 100 :] == notice + b"short\n"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), "connection refused"),
        (OSError(errno.EHOSTUNREACH, "Error connecting to ..."), "no route to host"),
        (socket.gaierror(-2, "Name or service not known"), "name or service not known"),
        (OSError("CERTIFICATE_VERIFY_FAILED"), "CERTIFICATE_VERIFY_FAILED"),
    ],
)
def test_an_error_is_said_as_the_system_says_it(error: OSError, words: str) -> None:
    """The words fit the end of a sentence."""
    assert words_of(error) == words


@pytest.mark.parametrize(
    ("cause", "number"),
    [(TimeoutError(errno.ETIMEDOUT, "x"), errno.ETIMEDOUT), (ssl.SSLError(1, "x"), None)],
)
def test_the_systems_own_error_comes_through_tls(cause: OSError, number: int | None) -> None:
    """TLS has its own error numbers with other meanings."""
    error = trio.BrokenResourceError("x")
    error.__cause__ = cause
    assert _of_system(error).errno == number
