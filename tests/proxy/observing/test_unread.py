"""Messages that wait for a reader that does not read."""

from __future__ import annotations

import pytest
import trio

from proxy.observing.unread import Unread


async def test_all_that_waits_is_taken_at_once_and_in_order() -> None:
    """Later messages are returned by a later call."""
    unread = Unread(100)
    assert unread.put(b"one")
    assert unread.put(b"two")
    assert await unread.take() == [b"one", b"two"]
    with trio.move_on_after(0.01) as scope:
        await unread.take()
    assert scope.cancelled_caught
    assert unread.put(b"three")
    assert await unread.take() == [b"three"]


async def test_more_than_the_bound_does_not_wait() -> None:
    """The bound counts bytes, not messages; messages that were taken no longer count."""
    unread = Unread(10)
    assert unread.put(b"x" * 6)
    assert not unread.put(b"x" * 6)
    assert unread.put(b"x" * 4)
    await unread.take()
    assert unread.put(b"x" * 10)


async def test_a_closed_one_gives_what_it_has_and_no_more() -> None:
    """The end tells a slow reader that it was too slow."""
    unread = Unread(10)
    unread.put(b"last")
    unread.close()
    assert not unread.put(b"x")
    assert await unread.take() == [b"last"]
    with pytest.raises(trio.EndOfChannel):
        await unread.take()
