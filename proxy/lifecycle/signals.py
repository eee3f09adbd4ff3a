"""What the daemon is told by signals, and who waits for it.

Owns the receiving. What follows is the root's.
"""

from __future__ import annotations

import contextlib
import os
import signal

import attrs
import structlog
import trio

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

log: structlog.stdlib.BoundLogger = structlog.get_logger("proxy")


@attrs.define(eq=False)
class Told:
    """What the signals have said so far.

    Attributes:
        stop: set when the daemon is to end in good order.
        hurry: set when it is to end at once.
        lets_go: whether models may live on: who restarts a daemon sends SIGTERM, a terminal SIGINT.
        hangups: something for a SIGHUP; of several that nobody has looked at, for one.
    """

    stop: trio.Event = attrs.field(factory=trio.Event, init=False)
    hurry: trio.Event = attrs.field(factory=trio.Event, init=False)
    lets_go: bool = attrs.field(default=False, init=False)
    hangups: trio.MemoryReceiveChannel[None] = attrs.field(init=False)
    _hung_up: trio.MemorySendChannel[None] = attrs.field(init=False)
    _had_terminal: bool = attrs.field(factory=lambda: has_terminal(), init=False)
    _outlives_terminal: bool = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._hung_up, self.hangups = trio.open_memory_channel[None](1)
        # As nohup(1) has set it.
        self._outlives_terminal = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN

    async def follow(
        self, grace: float, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Listen for signals until cancelled.

        Args:
            grace: seconds that open answers have to end, for the log.
            task_status: told when no signal is lost any more.
        """
        for known in SIGNALS:
            # The receiver puts this back at its end: a late one must not turn success into death.
            signal.signal(known, signal.SIG_IGN)
        with trio.open_signal_receiver(*SIGNALS) as signals:
            task_status.started()
            async for number in signals:
                self._hear(signal.Signals(number), grace)

    def _hear(self, number: signal.Signals, grace: float) -> None:
        is_hangup = number == signal.SIGHUP
        has_lost = is_hangup and self._had_terminal and not has_terminal()
        if has_lost and self._outlives_terminal:
            self._had_terminal = False  # the next is somebody's, who wants a reload
            log.info("SIGHUP: the terminal is gone; llamadoze goes on, as nohup wants it")
        elif is_hangup and not has_lost:
            with contextlib.suppress(trio.WouldBlock):
                self._hung_up.send_nowait(None)
        elif not self.stop.is_set():
            self.lets_go = number == signal.SIGTERM
            why = " (the terminal is gone)" if has_lost else ""
            log.info(
                f"{number.name}{why}: no new requests; open ones have {grace:g}s; "
                "a second signal ends everything at once"
            )
            self.stop.set()
        else:
            self.lets_go = False
            log.warning(f"{number.name}: ending everything at once")
            self.hurry.set()


def has_terminal() -> bool:
    """Whether this process belongs to a terminal that is still there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
