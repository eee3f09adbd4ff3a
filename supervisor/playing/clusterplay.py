"""A play of the clusters that a configuration has: all their allocations, with one clock.

Owns the way from the file to these allocations, and from each request to one of them. `allocations`
plays one allocation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from heapq import heappop, heappush
from math import inf
from random import Random

import attrs

from configschema import Config, Model, resolve_limits
from supervisor.clusters.surveying import gpus_in
from supervisor.playing.allocations import PlayedAllocation, QueueWait, Terms
from supervisor.playing.outcome import Arrival, Outcome
from supervisor.playing.played import Durations
from supervisor.playing.simulation import Simulation
from supervisor.room.space import HOST, Space
from supervisor.scheduling.decisions import Patience
from supervisor.scheduling.placement import MakeRoom
from supervisor.states.table import ENDED, State

_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")
WITHOUT_END = 1 << 60  # bytes of memory whose size is not given


@attrs.define(eq=False)
class ClusterPlay:
    """All allocations of a cluster, and the way of each request to one of them.

    Attributes:
        allocations: by name.
        homes: the allocation of each model.
        route: returns the model for a request's name; most names are models.
    """

    allocations: Mapping[str, PlayedAllocation]
    homes: Mapping[str, str]
    route: Callable[[str, ClusterPlay], str] = lambda name, _: name
    _agenda: list[tuple[float, str]] = attrs.field(factory=list, init=False)
    _due: dict[str, float] = attrs.field(factory=dict, init=False)

    def state_of(self, model: str) -> State:
        """Return a model's state; it is queued if its allocation is waited for."""
        allocation = self.allocations[self.homes[model]]
        server = allocation.play.servers[model]
        is_waited_for = not allocation.has_job and allocation.is_busy
        return State.QUEUED if is_waited_for and server.state in ENDED else server.state

    def load_of(self, model: str) -> int:
        """Return how many requests a model serves, or has waiting in its allocation."""
        server = self.allocations[self.homes[model]].play.servers[model]
        return server.in_flight + server.waiting

    def play(self, arrivals: Iterable[Arrival]) -> Outcome:
        """Play a trace to the end of its last request."""
        now = 0.0
        for arrival in sorted(arrivals, key=lambda one: one.at):
            self._until(arrival.at)
            now = arrival.at
            model = self.route(arrival.model, self)
            home = self.homes[model]
            allocation = self.allocations[home]
            allocation.advance(now)
            allocation.arrive(attrs.evolve(arrival, model=model))
            self._go_on(home)
        while any(one.is_busy for one in self.allocations.values()) and self._agenda:
            now = self._agenda[0][0]
            self._until(now)
        for allocation in self.allocations.values():
            allocation.advance(now)
            allocation.end()
        return _together([one.play.outcome() for one in self.allocations.values()], now)

    def _until(self, when: float) -> None:
        """Carry out what is due up to a moment."""
        while self._agenda and self._agenda[0][0] <= when:
            at, home = heappop(self._agenda)
            if at == self._due.get(home):  # otherwise the entry is out of date
                self.allocations[home].advance(at)
                self._go_on(home)

    def _go_on(self, home: str) -> None:
        allocation = self.allocations[home]
        allocation.go_on()
        at = self._due[home] = allocation.next_at
        if at < inf:
            heappush(self._agenda, (at, home))


def _together(outcomes: list[Outcome], end: float) -> Outcome:
    """Return the outcome of all of them; the serving and changing times are averages."""
    waits: dict[str, list[float]] = {}
    for one in outcomes:
        waits |= one.waits
    count = max(1, len(outcomes))
    return Outcome(
        waits=waits,
        activations=sum(one.activations for one in outcomes),
        spans=[span for one in outcomes for span in one.spans],
        end=end,
        serving=sum(one.serving for one in outcomes) / count,
        changing=sum(one.changing for one in outcomes) / count,
        refused=sum(one.refused for one in outcomes),
    )


@attrs.frozen(kw_only=True)
class Weather:
    """What a cluster does by itself.

    Attributes:
        queues: how long jobs wait, by the allocation; "" stands for any other.
        failures: how often a node fails in a year.
        gpu: bytes of each GPU, if memory decides who runs; 0 if not known.
        seed: the seed of all random numbers.
    """

    queues: Mapping[str, QueueWait] = attrs.field(factory=dict)
    failures: float = 0.0
    gpu: int = 0
    seed: int = 1


def cluster_play(
    config: Config,
    durations: Mapping[str, Durations],
    room: MakeRoom | Space,
    patience: Patience,
    weather: Weather,
    route: Callable[[str, ClusterPlay], str],
    *,
    first_come: bool = False,
) -> ClusterPlay:
    """Return a play of all models of a configuration, each in its own place.

    Args:
        config: says where each model runs.
        durations: the durations of its models.
        room: who must make room for whom, or the memory of llamadoze's own machine.
        patience: how long requests wait for others.
        weather: what the clusters do by themselves.
        route: returns the model that a request goes to.
        first_come: whether all requests are served strictly in the order of arrival.
    """
    homes = {name: model.allocation for name, model in config.models.items()}
    members: dict[str, dict[str, Durations]] = {}
    for name, home in homes.items():
        members.setdefault(home, {})[name] = durations[name]
    played = {}
    for number, (home, own) in enumerate(members.items()):
        first = config.models[next(iter(own))]
        has_memory = isinstance(room, Space)
        there = space_of(first, weather) if has_memory and first.holding else room
        terms = terms_of(config, first, own, weather, has_memory=has_memory)
        play = Simulation(own, there, patience, first_come)
        played[home] = PlayedAllocation(play, terms, Random(f"{weather.seed} {number}"))  # noqa: S311 -- a play
    return ClusterPlay(played, homes, route)


def terms_of(
    config: Config,
    model: Model,
    members: Mapping[str, Durations],
    weather: Weather,
    *,
    has_memory: bool,
) -> Terms:
    """Return the terms of a model's allocation."""
    limits = {name: resolve_limits(config, config.models[name]) for name in members}
    if model.holding is None:
        return Terms(is_held=True)
    held = model.holding
    usual = weather.queues.get("", QueueWait())
    return Terms(
        queue=weather.queues.get(held.name, usual),
        time=seconds_of(held.allocation.time) or inf,
        idle=held.allocation.idle,
        ttl={name: one.stop_ttl for name, one in limits.items()},
        failures=weather.failures * held.allocation.nodes,
        memory=0 if has_memory else held.allocation.memory or 0,
    )


def space_of(model: Model, weather: Weather) -> Space:
    """Return the memory of a model's allocation."""
    held = model.holding
    if held is None:
        return Space(whole={HOST: WITHOUT_END})
    gpus = {f"gpu{n}": weather.gpu or WITHOUT_END for n in range(gpus_in(held.allocation.gres))}
    return Space(whole={**gpus, HOST: held.allocation.memory or WITHOUT_END})


def seconds_of(text: str) -> float:
    """Return the seconds of a time in sbatch's form; 0 for none.

    ``minutes``, ``minutes:seconds``, ``hours:minutes:seconds``, ``days-hours``,
    ``days-hours:minutes`` and ``days-hours:minutes:seconds`` (sbatch(1)).
    """
    found = _TIME.fullmatch(text)
    if not found:
        return 0.0
    days, *rest = found.groups()
    parts = [float(one) for one in rest if one is not None]
    units = (3600, 60, 1) if days is not None or len(parts) == 3 else (60, 1)
    return 86400 * float(days or 0) + sum(map(_times, parts, units))


def _times(amount: float, unit: float) -> float:
    return amount * unit
