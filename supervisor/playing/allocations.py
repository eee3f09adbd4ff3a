"""Many allocations of a cluster in virtual time: each is a play of its own, in successive jobs.

Owns how long a job is waited for, its end, its loss with a node, and when it is given back.
`simulation` plays what happens within one allocation. Jobs do not compete with each other: each
wait is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, log
from random import Random

import attrs

from supervisor.playing.outcome import Arrival
from supervisor.playing.played import PlayedServer
from supervisor.playing.simulation import Simulation
from supervisor.states.table import ENDED, HOLDS_MEMORY, State
from supervisor.upkeep.sleepbudget import LEFT_THERE, Budget, Sleeper, too_many

MARGIN = 60.0  # seconds before its end in which a job takes no more models; as in the daemon
LONGEST_LEAD, PART_OF_ITS_TIME = 900.0, 0.1
ENGINE = 0.7  # seconds from a running job to a step in it, as measured with Slurm
Z90 = 1.2815515655446004  # 90 % quantile of the standard normal distribution
YEAR = 365 * 86400.0


@attrs.frozen
class QueueWait:
    """How long a job waits in the queue: log-normal, as most queues are.

    Attributes:
        median: seconds.
        most: seconds that nine in ten jobs stay below.
    """

    median: float = 0.0
    most: float = 0.0

    def drawn(self, chance: Random) -> float:
        """Return the wait of one job in seconds."""
        if not self.median or self.most <= self.median:
            return self.median
        return self.median * chance.lognormvariate(0, log(self.most / self.median) / Z90)


@attrs.frozen(kw_only=True)
class Terms:
    """The terms of one allocation.

    Attributes:
        queue: how long its jobs wait.
        time: seconds that a job lasts; infinity without a limit.
        idle: seconds that it is kept while no model is in it.
        ttl: by model, seconds without use after which the model leaves; 0 is never.
        failures: how often its nodes fail in a year.
        is_held: whether it needs no job, because it is llamadoze's own machine.
        memory: bytes of host memory that its models may hold; 0 is no limit, or the play has one.
    """

    queue: QueueWait = QueueWait()
    time: float = inf
    idle: float = 300.0
    ttl: Mapping[str, float] = attrs.field(factory=dict)
    failures: float = 0.0
    is_held: bool = False
    memory: int = 0


@attrs.define(eq=False)
class PlayedAllocation:
    """One allocation.

    Attributes:
        play: the models in it.
        terms: its terms.
        chance: the source of random numbers.
        held: seconds for which its jobs were held.
        jobs: the number of its jobs.
        queued: seconds that each job waited.
        cut: requests that were lost with a job.
        most_asleep: the most models that slept in it at a time.
    """

    play: Simulation
    terms: Terms
    chance: Random
    held: float = 0.0
    jobs: int = 0
    queued: list[float] = attrs.field(factory=list)
    cut: int = 0
    most_asleep: int = 0
    _backlog: list[Arrival] = attrs.field(factory=list)
    _granted_at: float = inf  # when the requested job begins
    _began: float = inf  # when the present job began; infinity without a job
    _fails_at: float = inf
    _leaves: bool = False  # whether the job's models end
    _used_at: float = 0.0
    _now: float = 0.0
    _seen: int = 0

    def __attrs_post_init__(self) -> None:
        if self.terms.is_held:
            self._began = 0.0

    @property
    def is_busy(self) -> bool:
        """Whether a request is served or waits."""
        return bool(self._backlog) or self.play.is_busy

    @property
    def has_job(self) -> bool:
        """Whether models can be in it now."""
        return self._began < inf

    @property
    def next_at(self) -> float:
        """When something happens without a new request."""
        times = [self._granted_at, self._fails_at]
        if self.has_job:
            times += [self._leaves_at, self._ends_at, self._renews_at, self._idle_at()]
        own = min((time for time in times if time > self._now), default=inf)
        return min(own, self.play.next_at)

    @property
    def _ends_at(self) -> float:
        return self._began + self.terms.time

    @property
    def _leaves_at(self) -> float:
        return self._ends_at - min(MARGIN, PART_OF_ITS_TIME * self.terms.time)

    @property
    def _renews_at(self) -> float:
        return self._ends_at - min(LONGEST_LEAD, PART_OF_ITS_TIME * self.terms.time)

    def _idle_at(self) -> float:
        """Return when a model's idle time is over, or the allocation's own."""
        if self.is_busy:
            return inf
        present = [one for one in self.play.servers.values() if one.state not in ENDED]
        if not present:
            return inf if self.terms.is_held else self._used_at + self.terms.idle
        return min(self._expires(one) for one in present)

    def _expires(self, server: PlayedServer) -> float:
        ttl = self.terms.ttl.get(server.name, 0.0)
        is_at_rest = server.state in (State.READY, State.ASLEEP)
        return server.idle_since + ttl if ttl and is_at_rest else inf

    # What happens.

    def advance(self, now: float) -> None:
        """Let time pass."""
        self._now = now
        self.play.advance(now)

    def arrive(self, arrival: Arrival) -> None:
        """Add a request."""
        if self.has_job and not self._leaves:
            self.play.arrive(arrival)
            return
        self._backlog.append(arrival)
        self._ask()

    def go_on(self) -> None:
        """Carry out what is due."""
        self.play.go_on()
        if self.is_busy:
            self._used_at = self._now
        if self._now >= self._fails_at:
            self._fail()
        if self.has_job and not self.terms.is_held:
            self._heed_its_end()
        if self._now >= self._granted_at and not self.has_job:
            self._begin()
        self._let_idle_ones_go()
        if self.play.moves != self._seen:
            self._seen = self.play.moves
            self._let_sleepers_go()
            asleep = sum(one.state is State.ASLEEP for one in self.play.servers.values())
            self.most_asleep = max(self.most_asleep, asleep)

    def _heed_its_end(self) -> None:
        present = any(one.state not in ENDED for one in self.play.servers.values())
        if self._now >= self._renews_at and (present or self.is_busy):
            self._ask()
        if self._now >= self._leaves_at or self._granted_at <= self._now:
            self._leaves = True
        if self._leaves:
            self._backlog += self.play.take_back()
            if not self.play.in_flight or self._now >= self._ends_at:
                self.cut += self.play.lose_all()
                self._give_back()
                if self._backlog:
                    self._ask()

    def _ask(self) -> None:
        """Request a job, unless one is requested already."""
        if self._granted_at < inf:
            return
        wait = self.terms.queue.drawn(self.chance)
        self.queued.append(wait)
        self._granted_at = self._now + wait + ENGINE

    def _begin(self) -> None:
        self.jobs += 1
        self._began, self._granted_at, self._leaves = self._now, inf, False
        self._used_at = self._now
        if self.terms.failures:
            self._fails_at = self._now + self.chance.expovariate(self.terms.failures / YEAR)
        waiting, self._backlog = self._backlog, []
        for arrival in waiting:
            self.play.arrive(arrival)
        self.play.go_on()

    def _give_back(self) -> None:
        self.held += self._now - self._began
        self._began = self._fails_at = inf
        self._leaves = False

    def _fail(self) -> None:
        """Lose the node with everything that runs on it."""
        self._backlog += self.play.take_back()
        self.cut += self.play.lose_all()
        self._give_back()
        if self._backlog:
            self._ask()

    def _let_idle_ones_go(self) -> None:
        if self.is_busy or not self.has_job:
            return
        for server in self.play.servers.values():
            if self._expires(server) <= self._now:
                self.play.stop(server.name)
                self._used_at = self._now
        is_empty = all(one.state in ENDED for one in self.play.servers.values())
        if is_empty and not self.terms.is_held and self._now >= self._used_at + self.terms.idle:
            self._give_back()

    def _let_sleepers_go(self) -> None:
        """Stop sleepers that lack memory, as the daemon does."""
        if not self.terms.memory:
            return
        awake, sleepers = 0, []
        for server in self.play.servers.values():
            known = server.durations.need.known
            if server.state is State.ASLEEP:
                held = known.host if known.host_asleep is None else known.host_asleep
                sleepers.append(self._sleeper(server, held or 0))
            elif server.state in HOLDS_MEMORY:
                awake += known.host or 0
        budget = Budget(memory=max(1, int(self.terms.memory * (1 - LEFT_THERE)) - awake))
        for name in too_many(sleepers, budget):
            self.play.stop(name)

    def _sleeper(self, server: PlayedServer, memory: int) -> Sleeper:
        idle = self._now - server.idle_since
        return Sleeper(model=server.name, idle=idle, costs=server.snapshot().costs, memory=memory)

    def end(self) -> None:
        """Count the job that is held at the end of the play."""
        if self.has_job and not self.terms.is_held:
            self._give_back()
