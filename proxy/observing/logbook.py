"""The latest lines of the log, and the lines to come: for ``/logs``, ``/logs/stream`` and events.

Owns the histories of the daemon's own lines and of all models' output, and their listeners.
`logformat` writes the log. The history of a single model is kept with the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs

from proxy.observing.unread import Unread
from supervisor.processes.output import LogRing
from supervisor.states.journal import Journal
from supervisor.states.table import ENDED, Event, State

PROXY, UPSTREAM = "proxy", "upstream"
MOST_UNREAD = 1 << 20  # bytes that a slow reader may leave unread

Listener = Callable[[str, bytes], None]


@attrs.define(eq=False)
class Reader:
    """Follows one log. It is told how many bytes it missed because it was too slow."""

    _source: str | None
    _unread: Unread = attrs.field(factory=lambda: Unread(MOST_UNREAD), init=False)
    _lost: int = attrs.field(default=0, init=False)

    def hear(self, source: str, data: bytes) -> None:
        """Take logged bytes, if they belong to the log that is followed."""
        if self._source is not None and not f"{source}/".startswith(f"{self._source}/"):
            return
        if self._unread.put(self._notice() + data):
            self._lost = 0
        elif not self._unread.is_closed:
            self._lost += len(data)

    def _notice(self) -> bytes:
        if not self._lost:
            return b""
        return b"\n[%d bytes dropped: this reader is too slow]\n" % self._lost

    def close(self) -> None:
        """Take no more bytes."""
        self._unread.close()

    async def read(self) -> bytes:
        """Return what was logged since the last call.

        Raises:
            trio.EndOfChannel: no more bytes will come.
        """
        taken = await self._unread.take()
        taken.append(self._notice())
        self._lost = 0
        return b"".join(taken)


@attrs.define(eq=False)
class LogBook(Journal):
    """The log of a daemon. The supervisor uses it as a journal.

    Attributes:
        shown: the sources of the combined log: proxy, upstream, both or neither.
        show: writes a model's output into the combined log.
        show_end: called when a process of a model has ended.
    """

    shown: frozenset[str] = frozenset({PROXY})
    show: Callable[[str, bytes], None] = lambda _, __: None
    show_end: Callable[[str], None] = lambda _: None
    proxy: LogRing = attrs.field(factory=LogRing, init=False)
    upstream: LogRing = attrs.field(factory=LogRing, init=False)
    _mixed: LogRing = attrs.field(factory=LogRing, init=False)
    _listeners: set[Listener] = attrs.field(factory=set, init=False)
    _readers: set[Reader] = attrs.field(factory=set, init=False)

    @property
    def combined(self) -> LogRing:
        """The combined log, in the order of its lines."""
        return self.proxy if self.shown == {PROXY} else self._mixed

    def keep(self, data: bytes) -> None:
        """Take one of the daemon's own lines, with its newline."""
        self.proxy.keep(data)
        self._tell_all(PROXY, PROXY, data)

    def wrote(self, model: str, output: bytes) -> None:
        """Take a model's output, and write it into the combined log if `shown` says so."""
        self.upstream.keep(output)
        self._tell_all(UPSTREAM, f"{UPSTREAM}/{model}", output)
        if UPSTREAM in self.shown:
            self.show(model, output)

    def stepped(self, model: str, event: Event, state: State, took: float) -> None:
        """Show the last line of a process that ended without a newline."""
        if state in ENDED:
            self.show_end(model)

    def _tell_all(self, kind: str, source: str, data: bytes) -> None:
        if kind in self.shown and UPSTREAM in self.shown:
            self._mixed.keep(data)
        for listener in tuple(self._listeners):
            listener(source, data)

    @contextmanager
    def followed(self, source: str | None) -> Iterator[Reader]:
        """Follow the log.

        Args:
            source: ``proxy``, ``upstream``, ``upstream/MODEL``; None for the combined log.
        """
        reader = Reader(source)
        self._readers.add(reader)
        try:
            with self.listening(reader.hear if source else self._combined(reader)):
                yield reader
        finally:
            self._readers.discard(reader)

    def close(self) -> None:
        """End all readers."""
        for reader in tuple(self._readers):
            reader.close()

    def _combined(self, reader: Reader) -> Listener:
        def hear(source: str, data: bytes) -> None:
            if source.partition("/")[0] in self.shown:
                reader.hear(source, data)

        return hear

    @contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        """Call a listener with each piece of log and its source, such as ``upstream/MODEL``."""
        self._listeners.add(listener)
        try:
            yield
        finally:
            self._listeners.discard(listener)


def shown_in(setting: str) -> frozenset[str]:
    """Return the sources that ``logToStdout`` names: llama-swap's words, or several with commas."""
    words = {word.strip() for word in setting.split(",")}
    return frozenset({PROXY, UPSTREAM} if "both" in words else words & {PROXY, UPSTREAM})
