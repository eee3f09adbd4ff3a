"""What is reported of decisions: which model starts or wakes for whom, who makes room, and why now.

Owns when a decision is new: the same decision is made again and again until it is carried out.
`turns` decides, and the scheduler acts.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count

import attrs
import trio

from supervisor.model.server import ModelServer
from supervisor.scheduling.decisions import Decision
from supervisor.scheduling.queueing import Turn, WaitingList
from supervisor.states.causes import AN_OPERATOR, Asker, Cause, Ruling, Victim, Why
from supervisor.states.durations import seconds
from supervisor.states.journal import Journal
from supervisor.states.snapshot import Snapshot
from supervisor.states.table import State, Wish

JUST_NOW = 0.5  # seconds


@attrs.define(eq=False)
class Rulings:
    """Tells the journal of each ruling once, and again when one more model must make room.

    Attributes:
        servers: all model servers by id.
        waiting: the turns that wait.
        journal: the journal that is told.
    """

    servers: Mapping[str, ModelServer]
    waiting: WaitingList
    journal: Journal
    _numbers: count[int] = attrs.field(factory=lambda: count(1), init=False)
    _open: dict[str, Ruling] = attrs.field(factory=dict, init=False)
    _firsts: dict[str, Turn] = attrs.field(factory=dict, init=False)
    _closed: dict[str, tuple[float, int]] = attrs.field(factory=dict, init=False)

    def note(self, decision: Decision) -> None:
        """Forget rulings that are over; note which models are closed for newcomers, since when."""
        for name in [one for one in self._open if self._is_over(one, decision)]:
            del self._open[name]
            self._firsts.pop(name, None)
        for ruling in list(self._open.values()):
            self._tell_if_the_first_has_left(ruling)
        for name in self._closed.keys() - decision.closed - decision.wishes.keys():
            del self._closed[name]
        for name in decision.closed - self._closed.keys():
            self._closed[name] = trio.current_time(), self.servers[name].usage.in_flight

    def _is_over(self, name: str, decision: Decision) -> bool:
        return name in decision.admit or self.waiting.first(name) is None

    def _tell_if_the_first_has_left(self, ruling: Ruling) -> None:
        first = self.waiting.first(ruling.model)
        if first is not None and first is not self._firsts.get(ruling.model):
            self._firsts[ruling.model] = first
            waited = trio.current_time() - first.since
            self._tell(attrs.evolve(ruling, asker=Asker.of(first.asker), waited=waited))

    def why(self, server: ModelServer, wish: Wish, decision: Decision, rule: str) -> Cause:
        """Return why a wish is decided, and report the ruling that it follows from.

        Args:
            server: the server that the wish is for.
            wish: what is wanted.
            decision: the decision with this wish.
            rule: the name of what decides which models run together.
        """
        name = server.model.id
        wanted = decision.causes.get(name, "")
        if wish is server.wanted.wish:  # it is known already
            return Cause(why=Why.ROOM, model=wanted)
        if wish is Wish.SERVE:
            return self._comes(name, server.known.gpus, rule)
        if not wanted:
            return self._moves(name, rule)
        victim = self._victim(server.snapshot())
        if name not in decision.cut:
            return self._leaves(victim, Why.ROOM, wanted, rule)
        text = f"its requests delayed others for {seconds(server.limits.drain)} (drainTimeout)"
        return self._leaves(attrs.evolve(victim, because=text), Why.DRAIN, wanted, rule)

    def _leaves(self, victim: Victim, why: Why, wanted: str, rule: str) -> Cause:
        ruling, name = self._open.get(wanted) or self._new(wanted, rule), victim.model
        self._closed.pop(name, None)
        others = tuple(one for one in ruling.victims if one.model != name)
        self._tell(attrs.evolve(ruling, victims=(*others, victim)))
        return Cause(why=why, text=victim.because, model=wanted, ruling=ruling.number)

    def _comes(self, name: str, gpus: tuple[str, ...], rule: str) -> Cause:
        ruling = attrs.evolve(self._open.get(name) or self._new(name, rule), gpus=gpus)
        self._tell(ruling)
        return Cause(why=ruling.asker.why, text=ruling.asker.request, ruling=ruling.number)

    def _moves(self, name: str, rule: str) -> Cause:
        ruling = self._open.get(name) or self._new(name, rule)
        self._tell(ruling)
        text = "it cannot wake where it is, and starts elsewhere"
        return Cause(why=Why.ITSELF, text=text, ruling=ruling.number)

    def _new(self, name: str, rule: str) -> Ruling:
        first = self.waiting.first(name)
        if first is not None:
            self._firsts[name] = first
        return Ruling(
            number=next(self._numbers),
            model=name,
            asker=Asker.of(first.asker) if first else AN_OPERATOR,
            waited=trio.current_time() - first.since if first else 0.0,
            waiting=self.servers[name].usage.waiting,
            rule=rule,
        )

    def _tell(self, ruling: Ruling) -> None:
        self._open[ruling.model] = ruling
        self.journal.ruled(ruling)

    def _victim(self, model: Snapshot) -> Victim:
        now = trio.current_time()
        idle = 0.0 if model.in_flight else max(0.0, now - model.idle_since)
        return Victim(
            model=model.model,
            state=model.state.value,
            because=self._why_now(model, idle, now),
            to_rest=model.cost_to_rest(),
            to_return=(model.costs.wake if model.can_sleep else model.costs.start) or 0.0,
            idle=idle,
        )

    def _why_now(self, model: Snapshot, idle: float, now: float) -> str:
        if closed := self._closed.get(model.model):
            since, users = closed
            those = "a request, which has" if users == 1 else f"{users} requests, which have"
            ago = seconds(round(now - since, 1))
            return f"closed for newcomers {ago} before; it had {those} ended since"
        if model.state is not State.READY:
            return f"no request waits for it ({model.state.value})"
        if idle < JUST_NOW:
            return "its last request had just ended"
        return f"idle for {seconds(round(idle, 1))}"
