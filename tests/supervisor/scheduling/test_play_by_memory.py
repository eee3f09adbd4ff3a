"""Whose turn it is by memory, in random play: no model starts without room, and none starves."""

from __future__ import annotations

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from supervisor.room.space import HOST, Space
from supervisor.scheduling.blocked import blocked_by_memory
from supervisor.scheduling.bymemory import ByMemory
from supervisor.scheduling.decisions import Patience
from supervisor.scheduling.turns import decide
from supervisor.states.footprint import Footprint
from supervisor.states.pins import KEPT
from supervisor.states.snapshot import Need, Snapshot
from supervisor.states.table import AT_REST, ENDED, HOLDS_MEMORY, Event, State, Wish, step
from tests.supervisor.scheduling.rooms import awake_on, beyond, holding_now, machine
from tests.supervisor.scheduling.test_play import COSTS, MODELS, WAYS, Play

GIB = 1 << 30
MACHINES = {
    "one GPU": machine(24, host=64),
    "two GPUs": machine(24, 16, host=64),
    "a GPU and little else": machine(24, host=20),
    "no GPU": machine(host=24),
}
REAL = {  # GiB awake on each GPU; awake on the host; asleep on each GPU
    "a": (10, 6, 1),
    "b": (15, 4, 2),
    "c": (8, 9, 0),
    "d": (20, 12, 1),
}


class PlayByMemory(Play):
    """The same play with devices; what a model needs is learned once it has been awake."""

    def __init__(self) -> None:
        super().__init__()
        self.space: Space = MACHINES["one GPU"]
        self.seen: set[str] = set()

    @initialize(
        where=st.sampled_from(sorted(MACHINES)),
        max_wait=st.sampled_from([0, 5, 20]),
        pair=st.sampled_from([None, *MODELS]),
        cpu=st.sampled_from([None, *MODELS]),
    )
    def configure(self, where: str, max_wait: int, pair: str | None, cpu: str | None) -> None:
        self.space = MACHINES[where]
        self.patience = Patience(max_wait=max_wait)
        for name in MODELS:
            count = 0 if name == cpu else 2 if name == pair else 1
            self.models[name] = Snapshot(
                model=name, can_sleep=name != "c", costs=COSTS[name], need=Need(gpus=count)
            )

    def room(self) -> ByMemory:
        """Return the room for those models that a decision is told of."""
        waiting = {name for name, _ in self.waiting}
        models = {
            name: attrs.evolve(one, waiting=sum(other == name for other, _ in self.waiting))
            for name, one in self.models.items()
            if name in waiting or one.state not in ENDED or one.wish is Wish.SERVE
        }
        return ByMemory(models, self.space, self.now, self.patience.max_wait)

    def settle(self) -> None:
        room = self.room()
        for demand in self.demands():
            if not self.models[demand.model].serving and blocked_by_memory(demand.model, room):
                self.forget(demand.model)
        room = self.room()
        decision = decide(self.demands(), room.models, room, self.patience, self.now)
        assert decision.until > self.now
        for name, wish in decision.wishes.items():
            model = self.models[name]
            if wish is Wish.SERVE:
                if model.state in AT_REST:
                    self.change(name, gpus=decision.gpus.get(name, model.gpus))
            else:
                assert not model.in_flight
                assert model.pin is None or decision.causes.get(name) is None
            self.change(name, wish=wish, leaving=model.leaving or wish is Wish.STOP)
        for name in decision.admit:
            assert self.models[name].serving
            count = sum(other == name for other, _ in self.waiting)
            self.change(name, in_flight=self.models[name].in_flight + count)
        self.waiting = [one for one in self.waiting if one[0] not in decision.admit]

    @rule(name=st.sampled_from(MODELS))
    def pinned_or_not(self, name: str) -> None:
        self.change(name, pin=None if self.models[name].pin else KEPT)
        self.settle()

    @rule(gib=st.sampled_from([0, 0, 4, 12]))
    def strangers_come_and_go(self, gib: int) -> None:
        """They take only what is free, as processes do."""
        gpu = (self.space.gpus or [HOST])[0]
        ours = sum(holding_now(m, self.space).amounts.get(gpu, 0) for m in self.models.values())
        whole = any(gpu in holding_now(m, self.space).whole for m in self.models.values())
        taken = 0 if whole else max(0, min(gib * GIB, self.space.whole[gpu] - ours))
        self.space = attrs.evolve(self.space, others={gpu: taken})
        self.settle()

    @rule(name=st.sampled_from(MODELS))
    def start_fails_for_memory(self, name: str) -> None:
        """The model needs more than was known, and gets the whole device next time."""
        if self.models[name].state is State.STARTING:
            known = self.models[name].need.known.was_too_little()
            self.learn(name, known)
            self.change(name, state=State.STOPPING, wish=Wish.STOP, leaving=True)
            self.settle()

    def learn(self, name: str, known: Footprint) -> None:
        self.change(name, need=attrs.evolve(self.models[name].need, known=known))

    def move(self, name: str) -> None:
        before = self.models[name]
        if not before.leaving and before.wish is Wish.SERVE and before.state in AT_REST:
            self.assert_it_fits(before)
        if before.state in ENDED and before.wish is Wish.SERVE:
            self.change(name, leaving=False)
            self.assert_it_fits(self.models[name])
        self._move(name)

    def _move(self, name: str) -> None:
        """Do what the model's task does next, and learn what is seen then."""
        model = self.models[name]
        ways = WAYS[model.state]
        event = ways.get(model.wish) or ways.get(None)
        if model.leaving and Wish.STOP in ways:
            event = Event.STOP
        if event is None or (event is Event.SLEEP and model.in_flight):
            return
        if event is Event.ENDED and name in self.dying:
            self.dying.discard(name)
            if model.wish is Wish.SERVE:
                self.forget(name)
            self.change(name, wish=Wish.STOP)
            event = Event.GAVE_UP
        if event in (Event.BECAME_READY, Event.WOKE):
            self.change(name, ready_since=self.now)
            self.learn(name, model.need.known.was_enough())
        self.change(name, state=step(model.state, event))
        self.look_at(name)
        if self.models[name].state in ENDED:
            self.change(name, gpus=())
        self.settle()

    def look_at(self, name: str) -> None:
        """Learn as the keeper of the room does."""
        model, (gpu, host, left) = self.models[name], REAL[name]
        known = model.need.known
        if model.state is State.READY:
            awake = [gpu * GIB for _ in model.gpus] if self.space.gpus else None
            self.learn(name, known.held_awake(awake, host * GIB))
        elif model.state is State.ASLEEP:
            asleep = [left * GIB for _ in model.gpus] if self.space.gpus else None
            self.learn(name, known.rested().held_asleep(asleep, GIB))
        elif model.state in ENDED:
            self.learn(name, known.rested())

    def assert_it_fits(self, model: Snapshot) -> None:
        """Check that others do not hold what the model is assumed to need."""
        mine = awake_on(model, model.gpus, self.space)
        others = [m for m in self.models.values() if m.model != model.model]
        held = [holding_now(one, self.space) for one in others]
        used = {d for d, amount in mine.amounts.items() if amount}
        assert not used & beyond([mine, *held], self.space)
        for one, its in zip(others, held, strict=True):
            if one.state in HOLDS_MEMORY:
                assert not its.whole & (used | mine.whole)
                assert not any(its.amounts.get(device) for device in mine.whole)


TestPlayByMemory = PlayByMemory.TestCase
TestPlayByMemory.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
