"""The signals that the daemon receives, and the events that they set.

Owns the receiving. The root decides what follows.
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
    """What the signals have asked for so far.

    Attributes:
        stop: set when the daemon has to end in good order.
        hurry: set when it has to end at once.
        lets_go: whether models may live on: a restart sends SIGTERM, a terminal sends SIGINT.
        hangups: one item for each SIGHUP; several that are not handled yet count as one.
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
        # True if nohup(1) has set it.
        self._outlives_terminal = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN

    async def follow(
        self, grace: float, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Handle signals until cancelled.

        Args:
            grace: seconds that open answers have to end, for the log.
            task_status: told when no signal can be lost any more.
        """
        for known in SIGNALS:
            # The receiver restores this at its end: a late signal must not fail the exit.
            signal.signal(known, signal.SIG_IGN)
        with trio.open_signal_receiver(*SIGNALS) as signals:
            task_status.started()
            async for number in signals:
                self._hear(signal.Signals(number), grace)

    def _hear(self, number: signal.Signals, grace: float) -> None:
        is_hangup = number == signal.SIGHUP
        has_lost = is_hangup and self._had_terminal and not has_terminal()
        if has_lost and self._outlives_terminal:
            self._had_terminal = False  # the next SIGHUP asks for a reload
            log.info(
                "SIGHUP: the terminal is gone; llamadoze keeps running, as it runs under nohup"
            )
        elif is_hangup and not has_lost:
            with contextlib.suppress(trio.WouldBlock):
                self._hung_up.send_nowait(None)
        elif not self.stop.is_set():
            self.lets_go = number == signal.SIGTERM
            why = " (the terminal is gone)" if has_lost else ""
            log.info(
                f"{number.name}{why}: no new requests; those in flight have {grace:g}s to end; "
                "a second signal ends everything at once"
            )
            self.stop.set()
        else:
            self.lets_go = False
            log.warning(f"{number.name}: ending everything at once")
            self.hurry.set()


def has_terminal() -> bool:
    """Whether this process has a terminal that still exists."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
