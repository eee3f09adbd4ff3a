"""Whose turn it is, in random play: no model ever meets one that it must not meet."""

from __future__ import annotations

from collections import Counter
from typing import Any

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from supervisor.scheduling.decisions import Demand, Patience
from supervisor.scheduling.placement import MakeRoom
from supervisor.scheduling.turns import decide
from supervisor.states.snapshot import Costs, Snapshot
from supervisor.states.table import HOLDS_MEMORY, Event, State, Wish, step
from tests.supervisor.scheduling.test_placement import rules

PLACEMENTS = {
    "one at a time": "",
    "groups": """
groups:
  pair: {swap: true, exclusive: false, members: [a, b]}
  rest: {swap: false, exclusive: true, members: [c]}
  kept: {swap: false, exclusive: false, persistent: true, members: [d]}
""",
    "matrix": """
matrix:
  evict_costs: {b: 3}
  sets: {one: a & b, two: (b | c) & d, three: a & c & d}
""",
}

MODELS = "abcd"
WAYS: dict[State, dict[Wish | None, Event]] = {
    State.STOPPED: {Wish.SERVE: Event.START},
    State.FAILED: {Wish.SERVE: Event.START},
    State.STARTING: {Wish.STOP: Event.STOP, None: Event.BECAME_READY},
    State.READY: {Wish.SLEEP: Event.SLEEP, Wish.STOP: Event.STOP},
    State.FALLING_ASLEEP: {Wish.STOP: Event.STOP, None: Event.SLEPT},
    State.ASLEEP: {Wish.SERVE: Event.WAKE, Wish.STOP: Event.STOP},
    State.WAKING: {Wish.STOP: Event.STOP, None: Event.WOKE},
    State.STOPPING: {None: Event.ENDED},
}


COSTS = {"a": Costs(), "b": Costs(sleep=1, wake=1), "c": Costs(start=60, stop=1), "d": Costs()}


class Play(RuleBasedStateMachine):
    """Requests come, leave and end; models move as their tasks would; and sometimes one dies."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[tuple[str, float]] = []
        self.models = {
            name: Snapshot(model=name, can_sleep=name != "c", costs=COSTS[name]) for name in MODELS
        }
        self.dying: set[str] = set()
        self.now = 1.0
        self.make_room: MakeRoom = rules()
        self.patience = Patience()

    @initialize(
        placement=st.sampled_from(sorted(PLACEMENTS)),
        max_wait=st.sampled_from([0, 5, 20]),
        min_active=st.sampled_from([0, 10]),
    )
    def configure(self, placement: str, max_wait: int, min_active: int) -> None:
        self.make_room = rules(PLACEMENTS[placement])
        self.patience = Patience(max_wait=max_wait, min_active=min_active)

    def change(self, name: str, **changes: Any) -> None:
        self.models[name] = attrs.evolve(self.models[name], **changes)

    def demands(self) -> list[Demand]:
        counts = Counter(name for name, _ in self.waiting)
        return [
            Demand(
                model=name,
                since=min(since for other, since in self.waiting if other == name),
                count=count,
                priority=int(name == "d"),
            )
            for name, count in counts.items()
        ]

    def settle(self) -> None:
        decision = decide(self.demands(), self.models, self.make_room, self.patience, self.now)
        assert decision.until > self.now
        for name, wish in decision.wishes.items():
            assert not (wish is not Wish.SERVE and self.models[name].in_flight)
            leaving = self.models[name].leaving or wish is Wish.STOP
            self.change(name, wish=wish, leaving=leaving)
        for name in decision.admit:
            assert self.models[name].serving
            count = sum(other == name for other, _ in self.waiting)
            self.change(name, in_flight=self.models[name].in_flight + count)
        self.waiting = [one for one in self.waiting if one[0] not in decision.admit]

    @rule(seconds=st.sampled_from([1, 4, 30]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds
        self.settle()

    @rule(name=st.sampled_from(MODELS))
    def request(self, name: str) -> None:
        self.waiting.append((name, self.now))
        self.settle()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def waiter_leaves(self, data: st.DataObject) -> None:
        self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
        self.settle()

    @rule(name=st.sampled_from(MODELS))
    def request_ends(self, name: str) -> None:
        if self.models[name].in_flight:
            self.change(name, in_flight=self.models[name].in_flight - 1)
            self.settle()

    @rule(name=st.sampled_from(MODELS))
    def operator_sleeps(self, name: str) -> None:
        model = self.models[name]
        if model.can_sleep and model.state in HOLDS_MEMORY - {State.STOPPING}:
            self.change(name, wish=Wish.SLEEP)

    @rule(name=st.sampled_from(MODELS))
    def operator_unloads(self, name: str) -> None:
        self.change(name, wish=Wish.STOP, leaving=True)
        self.forget(name)
        self.settle()

    @rule(name=st.sampled_from(MODELS))
    def model_moves(self, name: str) -> None:
        self.move(name)

    @rule(name=st.sampled_from(MODELS))
    def model_dies(self, name: str) -> None:
        if self.models[name].state in HOLDS_MEMORY - {State.STOPPING}:
            self.dying.add(name)
            self.change(name, state=State.STOPPING, in_flight=0)
            self.settle()

    def forget(self, name: str) -> None:
        self.waiting = [one for one in self.waiting if one[0] != name]

    def move(self, name: str) -> None:
        """Do what the model's task does next."""
        model = self.models[name]
        ways = WAYS[model.state]
        event = ways.get(model.wish) or ways.get(None)
        if model.leaving and Wish.STOP in ways:
            event = Event.STOP
        if event is None or (event is Event.SLEEP and model.in_flight):
            return
        if event in (Event.START, Event.WAKE):
            holders = {m.model for m in self.models.values() if m.state in HOLDS_MEMORY}
            assert not self.make_room(name, frozenset(holders - {name}))
        if event is Event.START:
            self.change(name, leaving=False)
        if event is Event.ENDED and name in self.dying:
            self.dying.discard(name)
            if model.wish is Wish.SERVE:
                self.forget(name)
            self.change(name, wish=Wish.STOP)
            event = Event.GAVE_UP
        if event in (Event.BECAME_READY, Event.WOKE):
            self.change(name, ready_since=self.now)
        self.change(name, state=step(model.state, event))
        self.settle()

    def teardown(self) -> None:
        """When requests end and models move, each waiting request is served or told."""
        for _ in range(200):
            self.now += 1
            self.settle()
            for name in MODELS:
                while self.models[name].in_flight:
                    self.change(name, in_flight=self.models[name].in_flight - 1)
                    self.settle()
                self.move(name)
        assert not self.waiting


TestPlay = Play.TestCase
TestPlay.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
