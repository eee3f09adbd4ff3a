"""What pages and tools are told while it happens: ``/api/events``, in llama-swap's form.

Owns who listens and the form of the messages. A listener that is too slow is let go; it comes again
and is then told of everything.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import attrs
import trio

from proxy.forwarding.inflight import Call, InFlight
from proxy.naming.resolving import Resolver
from proxy.observing import leaserows, listing
from proxy.observing.logbook import PROXY, LogBook
from proxy.observing.unread import Unread
from supervisor.model.leases import LeaseStep, NamedLease
from supervisor.states.journal import Journal
from supervisor.states.table import Event, State

MOST_UNREAD = 2 << 20  # bytes that a listener may be behind
BETWEEN_SIZES = 0.25  # seconds between two looks at how much was sent


@attrs.define(eq=False)
class Listener:
    """Somebody who is told; one that is too slow is let go."""

    _unread: Unread = attrs.field(factory=lambda: Unread(MOST_UNREAD), init=False)

    def tell(self, message: bytes) -> None:
        """Queue a message."""
        if not self._unread.put(message):
            self.close()

    def close(self) -> None:
        """Tell nothing more."""
        self._unread.close()

    async def read(self) -> list[bytes]:
        """Return the next messages; none if there are none for a while.

        Raises:
            trio.EndOfChannel: there will be no more.
        """
        with trio.move_on_after(BETWEEN_SIZES):
            return await self._unread.take()
        return []


@attrs.define(eq=False)
class Events(Journal):
    """Tell listeners what happens; also the supervisor's journal."""

    resolver: Resolver
    in_flight: InFlight
    book: LogBook
    _listeners: set[Listener] = attrs.field(factory=set, init=False)
    _hearing: AbstractContextManager[None] | None = attrs.field(default=None, init=False)

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield how everything stands, and then what happens."""
        with self._listening() as listener:
            for message in self._snapshot():  # however much that is, it is sent at once
                yield message
            sizes: dict[int, int] = {}
            looked = trio.current_time()
            while True:
                try:
                    messages = await listener.read()
                except trio.EndOfChannel:
                    return
                for message in messages:
                    yield message
                if trio.current_time() - looked < BETWEEN_SIZES:
                    continue
                looked = trio.current_time()
                for call in self._grown(sizes):
                    yield _in_flight("upsert", request=call.entry())
                sizes = {call.number: call.size for call in self.in_flight}

    @contextmanager
    def _listening(self) -> Iterator[Listener]:
        listener = Listener()
        if not self._listeners:
            self._hearing = self.book.listening(self._hear)
            self._hearing.__enter__()
            self.in_flight.on_change = self._call_changed
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
            if not self._listeners and self._hearing is not None:
                self._hearing.__exit__(None, None, None)
                self.in_flight.on_change = None

    def _hear(self, source: str, data: bytes) -> None:
        self._tell(_log(source.partition("/")[0], data))  # made once, for all who listen

    def _snapshot(self) -> Iterator[bytes]:
        yield _log(PROXY, self.book.proxy.text())
        yield _log("upstream", self.book.upstream.text())
        yield self._statuses()
        activity = self.resolver.config.ui.activity
        yield _message("uiConfig", {"activity": {"session_id": list(activity.session_id)}})
        yield _message("profileChanged", {"active": self.resolver.profile})
        leases = [leaserows.row(lease) for lease in self.resolver.supervisor.leases]
        yield _message("lease", {"operation": "list", "leases": leases})
        yield _in_flight("snapshot", requests=[call.entry() for call in self.in_flight])

    def _statuses(self) -> bytes:
        return _message("modelStatus", listing.statuses(self.resolver))

    def _grown(self, sizes: dict[int, int]) -> list[Call]:
        """Return the requests whose answers have grown since the last look."""
        return [call for call in self.in_flight if call.size > sizes.get(call.number, 0)]

    def close(self) -> None:
        """Let all listeners go."""
        for listener in tuple(self._listeners):
            listener.close()

    def _tell(self, message: bytes) -> None:
        for listener in tuple(self._listeners):
            listener.tell(message)

    def _call_changed(self, operation: str, call: Call) -> None:
        """Tell of a request that has come or gone."""
        if operation == "remove":
            self._tell(_in_flight(operation, id=str(call.number)))
            self._tell(_message("activity", {"id": call.number}))
        else:
            self._tell(_in_flight(operation, request=call.entry()))

    def profile_changed(self) -> None:
        """Tell of the profile, and of the models: names have changed."""
        if self._listeners:
            self._tell(_message("profileChanged", {"active": self.resolver.profile}))
            self._tell(self._statuses())

    def lease_stepped(self, step: LeaseStep, lease: NamedLease) -> None:
        """Tell of a lease that was granted or renewed, or has ended."""
        if self._listeners:
            facts = {"operation": step.value, "lease": leaserows.row(lease)}
            self._tell(_message("lease", facts))

    def stepped(self, model: str, event: Event, state: State, took: float) -> None:
        """Tell of the models."""
        if self._listeners:
            self._tell(self._statuses())


def _message(kind: str, data: Any) -> bytes:  # noqa: ANN401 -- JSON
    """Return one event; its data is JSON in a text in JSON, as llama-swap has it."""
    text = json.dumps({"type": kind, "data": json.dumps(data)})
    return f"event:message\ndata:{text}\n\n".encode()


def _log(source: str, data: bytes) -> bytes:
    return _message("logData", {"source": source, "data": data.decode("utf-8", "replace")})


def _in_flight(operation: str, **more: object) -> bytes:
    return _message("inflight", {"operation": operation, **more})
