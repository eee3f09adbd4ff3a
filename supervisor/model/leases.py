"""Leases that somebody asks for: a model stays for a time, whatever else wants its room.

Owns who has which lease until when, and what is logged of their ends. A lease does not survive the
daemon's end. The supervisor starts or wakes the model. In `scheduling`, the lease is a pin that
keeps the model from making room.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from math import inf

import attrs
import structlog
import trio

from supervisor.model.server import ModelServer
from supervisor.states.durations import seconds as shown
from supervisor.states.pins import Pin
from supervisor.states.refusals import TooManyLeases

log: structlog.stdlib.BoundLogger = structlog.get_logger("supervisor")

MOST_LEASES = 100  # at a time, of all models together
ID_BYTES = 6


class LeaseStep(Enum):
    """What happens to a lease; the value is what `/api/events` says."""

    GRANTED = "granted"
    RENEWED = "renewed"
    ENDED = "ended"


@attrs.frozen(kw_only=True)
class NamedLease:
    """A holder's claim that a model must stay.

    Attributes:
        id: the id by which it is found.
        model: the model's id.
        holder: who has it.
        reason: what it is for; may be empty.
        until: when it ends, on Trio's clock.
        expires: the same by the calendar, as computed at the grant.
    """

    id: str
    model: str
    holder: str
    reason: str = ""
    until: float
    expires: datetime

    @property
    def left(self) -> float:
        """The seconds until it ends."""
        return max(0.0, self.until - trio.current_time())

    @property
    def pin(self) -> Pin:
        """The pin that keeps the model from being asked to make room."""
        return Pin(holder=self.holder, until=self.until, reason=self.reason)


def _tell_nobody(_: LeaseStep, __: NamedLease) -> None:
    """Do nothing."""


@attrs.define(eq=False)
class Leases:
    """All leases there are.

    Attributes:
        servers: all model servers by id.
        settle: decides again which models run; called when a lease has ended.
        on_step: called with what happens to a lease.
    """

    servers: Mapping[str, ModelServer]
    settle: Callable[[], None]
    on_step: Callable[[LeaseStep, NamedLease], None] = _tell_nobody
    _all: dict[str, NamedLease] = attrs.field(factory=dict, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)

    async def run(self) -> None:
        """End each lease when it expires, for as long as the daemon runs."""
        while True:
            with trio.CancelScope(deadline=min((one.until for one in self), default=inf)):
                await self._changed.wait()
            self._changed = trio.Event()
            for lease in [one for one in self if one.until <= trio.current_time()]:
                self._end(lease, "has ended")

    def __iter__(self) -> Iterator[NamedLease]:
        return iter(tuple(self._all.values()))

    def find(self, number: str) -> NamedLease | None:
        """Return the lease of this id, if there is one."""
        return self._all.get(number)

    def of(self, model: str, holder: str) -> NamedLease | None:
        """Return the lease that a holder has on a model's id, if there is one."""
        return next((one for one in self if (one.model, one.holder) == (model, holder)), None)

    def make_sure_of_a_place(self, model: str, holder: str) -> None:
        """Refuse a lease that cannot be given, before anything is done for it.

        Raises:
            TooManyLeases: the limit is reached, and the holder has no lease on the model yet.
        """
        if len(self._all) >= MOST_LEASES and self.of(model, holder) is None:
            raise TooManyLeases(model, MOST_LEASES)

    def give(self, model: str, seconds: float, holder: str, reason: str = "") -> NamedLease:
        """Give a lease from now on, or extend the holder's present lease to that time.

        Args:
            model: the id of a model.
            seconds: from now on.
            holder: who gets it.
            reason: what it is for.

        Raises:
            TooManyLeases: the limit is reached.
        """
        self.make_sure_of_a_place(model, holder)
        known = self.of(model, holder)
        lease = NamedLease(
            id=known.id if known else secrets.token_hex(ID_BYTES),
            model=model,
            holder=holder,
            reason=reason or (known.reason if known else ""),
            until=trio.current_time() + seconds,
            expires=datetime.now(UTC) + timedelta(seconds=seconds),
        )
        self._all[lease.id] = lease
        _tell(lease, f"{'is renewed' if known else 'begins'}: the model stays for {shown(seconds)}")
        self._pin(model)
        self.on_step(LeaseStep.RENEWED if known else LeaseStep.GRANTED, lease)
        return lease

    def give_back(self, number: str) -> NamedLease | None:
        """End a lease before it expires; return it, or None if no lease has this id."""
        lease = self.find(number)
        if lease is not None:
            self._end(lease, "was given back")
        return lease

    def end_all_of(self, model: str, why: str) -> None:
        """End the leases on a model's id, for a reason in an operator's words."""
        for lease in [one for one in self if one.model == model]:
            self._end(lease, f"has ended: {why}")

    def _end(self, lease: NamedLease, what: str) -> None:
        """End a lease; without other pins, idle time begins and others may take the room."""
        del self._all[lease.id]
        self._pin(lease.model)
        server = self.servers.get(lease.model)
        is_kept = server is not None and server.known.pin(server.model)
        _tell(
            lease, f"{what}; {'the model is still kept' if is_kept else 'others may take its room'}"
        )
        self.on_step(LeaseStep.ENDED, lease)
        self.settle()

    def _pin(self, model: str) -> None:
        """Make the lease that ends last the model's pin."""
        self._changed.set()
        server = self.servers.get(model)
        if server is None:  # the model was removed, and its server has ended
            return
        pins = [one.pin for one in self if one.model == model]
        server.known.lease = max(pins, key=lambda pin: pin.until, default=None)
        server.usage.restart_idle_time()
        server.usage.stir()


def _tell(lease: NamedLease, what: str) -> None:
    text = f"<{lease.model}> Lease of {lease.holder} {what}"
    log.info(text, model=lease.model, holder=lease.holder, lease=lease.id, reason=lease.reason)
