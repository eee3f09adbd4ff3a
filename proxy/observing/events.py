"""The stream of events for pages and tools: ``/api/events``, in llama-swap's format.

Owns the listeners, the kinds of events that each one wants, and the format of the messages. If a
listener is too slow, its stream ends. The client then connects again and gets the whole state.
`pagefeed` owns the kinds of events that only llamadoze's own page uses.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import attrs
import trio

from proxy.forwarding.inflight import Call, InFlight
from proxy.http.errors import BadRequest
from proxy.naming.resolving import Resolver
from proxy.observing import leaserows, listing
from proxy.observing.logbook import PROXY, LogBook
from proxy.observing.pagefeed import PAGE_KINDS, PageFeed
from proxy.observing.unread import Unread
from supervisor.model.leases import LeaseStep, NamedLease
from supervisor.states.journal import Journal
from supervisor.states.table import Event, State

MOST_UNREAD = 2 << 20  # bytes that a listener may leave unread
BETWEEN_SIZES = 0.25  # seconds between two checks of how much was sent
LLAMA_SWAPS = ("logData", "modelStatus", "uiConfig", "profileChanged", "inflight", "activity")
KINDS = (*LLAMA_SWAPS, "lease", *PAGE_KINDS)
USUAL_KINDS = frozenset({*LLAMA_SWAPS, "lease", "timeline", "queue", "memory"})


def kinds_in(text: str | None) -> frozenset[str]:
    """Return the kinds that a query names, separated by commas; the usual ones without a query.

    Raises:
        BadRequest: the query names an unknown kind.
    """
    if text is None:
        return USUAL_KINDS
    asked = frozenset(filter(None, (word.strip() for word in text.split(","))))
    for unknown in sorted(asked - frozenset(KINDS)):
        known = f"expected some of {', '.join(KINDS)}"
        raise BadRequest(f"kinds={unknown[:40]}: {known}", param="kinds")
    return asked


@attrs.define(eq=False)
class Listener:
    """The reader of one stream of events. If it is too slow, the stream ends.

    Attributes:
        kinds: of the events that it gets.
    """

    kinds: frozenset[str]
    _unread: Unread = attrs.field(factory=lambda: Unread(MOST_UNREAD), init=False)

    def tell(self, message: bytes) -> None:
        """Queue a message."""
        if not self._unread.put(message):
            self.close()

    def close(self) -> None:
        """Queue no more messages."""
        self._unread.close()

    async def read(self) -> list[bytes]:
        """Return the next messages, or an empty list if none come within `BETWEEN_SIZES`.

        Raises:
            trio.EndOfChannel: no more messages will come.
        """
        with trio.move_on_after(BETWEEN_SIZES):
            return await self._unread.take()
        return []


@attrs.define(eq=False)
class Events(Journal):
    """Tells listeners what happens. The supervisor uses it as a journal.

    Attributes:
        resolver: knows the models and their names.
        in_flight: lists the requests in flight.
        book: the log.
        feed: gathers the events for llamadoze's own page.
        on_listeners: called when a listener comes or goes.
    """

    resolver: Resolver
    in_flight: InFlight
    book: LogBook
    feed: PageFeed
    on_listeners: Callable[[], None] = attrs.field(default=lambda: None, init=False)
    _listeners: set[Listener] = attrs.field(factory=set, init=False)
    _hearing: AbstractContextManager[None] | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.feed.tell, self.feed.is_wanted = self._say, self.is_wanted

    def is_wanted(self, kind: str) -> bool:
        """Whether any listener wants events of a kind."""
        return any(kind in listener.kinds for listener in self._listeners)

    async def stream(self, kinds: frozenset[str] = USUAL_KINDS) -> AsyncIterator[bytes]:
        """Yield the state of everything, and then each event."""
        with self._listening(Listener(kinds)) as listener:
            for message in self._snapshot(kinds):  # sent at once, whatever its size
                yield message
            sizes: dict[int, int] = {}
            looked = trio.current_time()
            while True:
                try:
                    messages = await listener.read()
                except trio.EndOfChannel:
                    return
                if messages:
                    yield b"".join(messages)
                if trio.current_time() - looked < BETWEEN_SIZES or "inflight" not in kinds:
                    continue
                looked = trio.current_time()
                if grown := self._grown(sizes):
                    yield b"".join(_in_flight("upsert", request=call.entry()) for call in grown)
                sizes = {call.number: call.size for call in self.in_flight}

    @contextmanager
    def _listening(self, listener: Listener) -> Iterator[Listener]:
        if not self._listeners:
            self._hearing = self.book.listening(self._hear)
            self._hearing.__enter__()
            self.in_flight.on_change = self._call_changed
        self._listeners.add(listener)
        self.on_listeners()
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
            if not self._listeners and self._hearing is not None:
                self._hearing.__exit__(None, None, None)
                self.in_flight.on_change = None
            self.on_listeners()

    def _hear(self, source: str, data: bytes) -> None:
        if self.is_wanted("logData"):
            self._tell("logData", _log(source.partition("/")[0], data))  # made once, for all
        if self.is_wanted("log"):
            self.feed.hear(source, data)

    def _snapshot(self, kinds: frozenset[str]) -> Iterable[bytes]:
        return (make() for kind, make in self._firsts() if kind in kinds)

    def _firsts(self) -> Iterator[tuple[str, Callable[[], bytes]]]:
        """Yield the first message of each kind, in llama-swap's order."""
        yield "logData", lambda: _log(PROXY, self.book.proxy.text())
        yield "logData", lambda: _log("upstream", self.book.upstream.text())
        yield "modelStatus", self._statuses
        sessions = list(self.resolver.config.ui.activity.session_id)
        yield "uiConfig", lambda: _message("uiConfig", {"activity": {"session_id": sessions}})
        yield "profileChanged", self._profile
        leases = [leaserows.row(lease) for lease in self.resolver.supervisor.leases]
        yield "lease", lambda: _message("lease", {"operation": "list", "leases": leases})
        calls = [call.entry() for call in self.in_flight]
        yield "inflight", lambda: _in_flight("snapshot", requests=calls)
        for kind, first in self.feed.firsts():
            yield kind, lambda kind=kind, first=first: _message(kind, first())  # type: ignore[misc] # bound now

    def _statuses(self) -> bytes:
        return _message("modelStatus", listing.statuses(self.resolver))

    def _profile(self) -> bytes:
        return _message("profileChanged", {"active": self.resolver.profile})

    def _grown(self, sizes: dict[int, int]) -> list[Call]:
        """Return the requests whose answers have grown since the last check."""
        return [call for call in self.in_flight if call.size > sizes.get(call.number, 0)]

    def close(self) -> None:
        """End all streams."""
        for listener in tuple(self._listeners):
            listener.close()

    def _say(self, kind: str, data: object) -> None:
        """Send an event to its listeners. Without listeners, no message is made."""
        if self.is_wanted(kind):
            self._tell(kind, _message(kind, data))

    def _tell(self, kind: str, message: bytes) -> None:
        for listener in tuple(self._listeners):
            if kind in listener.kinds:
                listener.tell(message)

    def _call_changed(self, operation: str, call: Call) -> None:
        """Tell of a request that has arrived or ended."""
        self.feed.touch(call.model)
        if self.is_wanted("inflight"):
            facts = {"id": str(call.number)} if operation == "remove" else {"request": call.entry()}
            self._tell("inflight", _in_flight(operation, **facts))
        if operation == "remove":
            self._say("activity", {"id": call.number})

    def profile_changed(self) -> None:
        """Tell of the profile and of the models, because names have changed."""
        self.feed.stir()
        if self.is_wanted("profileChanged"):
            self._tell("profileChanged", self._profile())
        if self.is_wanted("modelStatus"):
            self._tell("modelStatus", self._statuses())

    def reloaded(self) -> None:
        """Tell of a new configuration: of all models, and of removed ones."""
        self.feed.reloaded()
        if self.is_wanted("modelStatus"):
            self._tell("modelStatus", self._statuses())

    def lease_stepped(self, step: LeaseStep, lease: NamedLease) -> None:
        """Tell of a lease that was granted or renewed, or that has ended."""
        self.feed.touch(lease.model)
        self._say("lease", {"operation": step.value, "lease": leaserows.row(lease)})

    def stepped(self, model: str, event: Event, state: State, took: float) -> None:
        """Tell of the models, because one has changed its state."""
        self.feed.touch(model)
        if self.is_wanted("modelStatus"):
            self._tell("modelStatus", self._statuses())


def _message(kind: str, data: Any) -> bytes:  # noqa: ANN401 -- JSON
    """Return one event. As in llama-swap, its data is JSON in a JSON string."""
    text = json.dumps({"type": kind, "data": json.dumps(data)})
    return f"event:message\ndata:{text}\n\n".encode()


def _log(source: str, data: bytes) -> bytes:
    return _message("logData", {"source": source, "data": data.decode("utf-8", "replace")})


def _in_flight(operation: str, **more: object) -> bytes:
    return _message("inflight", {"operation": operation, **more})
