"""The allocations of all clusters, as models ask for them.

Owns which model is in which job, which models wait, and what these are told. `rounds` looks at the
jobs, requests them and gives them back. The models decide what runs in an allocation.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from math import inf

import attrs
import trio

from configschema import Holding
from supervisor.clusters.claim import Claim
from supervisor.clusters.marks import end_told, mark_of, queued_told
from supervisor.clusters.slurm import Job
from supervisor.states.durations import seconds
from supervisor.states.racing import race
from supervisor.states.snapshot import NO_QUEUE, Queue

DISPLACING = frozenset(
    [
        *("PREEMPTED", "TIMEOUT", "NODE_FAIL", "CANCELLED", "COMPLETING"),
        *("BOOT_FAIL", "DEADLINE", "REVOKED"),
    ]
)
"""States of jobs that did not end through a fault of what ran in them."""


class NoAllocation(Exception):
    """A model has no allocation and will get none; the text says why."""


@attrs.define(eq=False)
class Keeper:
    """All allocations.

    Attributes:
        owner: marks everything that this daemon requests.
        on_leave: called with a model's id and the reason when its server must leave its job.
        claims: the allocations by their marks.
        tokens: the names of steps that have an owner.
        ended: the ended jobs that Slurm still lists, by their numbers.
        numbers: the numbers of all jobs that were requested, however Slurm lists them.
        silence: why Slurm's state is unknown; empty while Slurm answers.
        has_audited: whether everything that an earlier daemon has left is known.
        orphaned: the numbers of jobs that still contain steps of an earlier daemon.
        moved_at: when something last changed, on Trio's clock.
        changed: set after each look at the cluster; then a new event stands for the next look.
        poked: set when a look is wanted soon.
    """

    owner: str
    on_leave: Callable[[str, str], None] = lambda _, __: None
    claims: dict[str, Claim] = attrs.field(factory=dict, init=False)
    tokens: set[str] = attrs.field(factory=set, init=False)
    ended: dict[str, Job] = attrs.field(factory=dict, init=False)
    numbers: set[str] = attrs.field(factory=set, init=False)
    silence: str = attrs.field(default="", init=False)
    has_audited: bool = attrs.field(default=False, init=False)
    orphaned: set[str] = attrs.field(factory=set, init=False)
    moved_at: float = attrs.field(factory=trio.current_time, init=False)
    changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    poked: trio.Event = attrs.field(factory=trio.Event, init=False)

    def claim(self, holding: Holding) -> Claim:
        """Return the claim of an allocation."""
        mark = mark_of(self.owner, holding)
        return self.claims.setdefault(mark, Claim(holding, mark))

    def change(self, holdings: Iterable[Holding]) -> None:
        """Apply the allocations that the configuration has now."""
        current = {mark_of(self.owner, holding): holding for holding in holdings}
        for mark, claim in list(self.claims.items()):
            claim.is_current = mark in current
            if not claim.is_current and claim.is_empty:
                del self.claims[mark]
        for holding in current.values():
            self.claim(holding).holding = holding  # its idle time may have changed
        self.poke()

    def poke(self) -> None:
        """Ask for a look soon: something has changed, or may have."""
        self.moved_at = trio.current_time()
        self.poked.set()

    # What models ask for.

    @asynccontextmanager
    async def held(
        self,
        holding: Holding,
        model: str,
        tell: Callable[[Queue], None],
        unwanted: Callable[[], Awaitable[None]],
    ) -> AsyncIterator[Job]:
        """Have a job for a model for as long as the block lasts.

        Args:
            holding: what the model needs.
            model: the model's id.
            tell: called with the reason for the wait, whenever that changes.
            unwanted: returns when the model is not wanted any more.

        Raises:
            NoAllocation: there will be no job; the text is empty if the model was not wanted any
            more.
        """
        claim = self.claim(holding)
        claim.waiting.add(model)
        claim.refusal = ""
        try:
            job: Job | str | None = await race(
                partial(self._granted, claim, tell), partial(self._too_long, claim), unwanted
            )
            if not isinstance(job, Job):
                raise NoAllocation(job or "")
            claim.users[model] = job.id
        finally:
            claim.waiting.discard(model)
            claim.empty_since = time.time()
            self.poke()
        async with self._used(claim, model):
            yield job

    @asynccontextmanager
    async def taken_over(self, holding: Holding, model: str, job: str) -> AsyncIterator[None]:
        """Have a model in a job that an earlier daemon has requested."""
        claim = self.claim(holding)
        claim.users[model] = job
        async with self._used(claim, model):
            yield

    @asynccontextmanager
    async def _used(self, claim: Claim, model: str) -> AsyncIterator[None]:
        try:
            yield
        finally:
            del claim.users[model]
            claim.empty_since = time.time()
            self.poke()

    async def _too_long(self, claim: Claim) -> str:
        limit = claim.holding.settings.queue_timeout
        await trio.sleep(limit)
        return f"no allocation within {seconds(limit)} (queueTimeout): {self._queue(claim).why}"

    async def _granted(self, claim: Claim, tell: Callable[[Queue], None]) -> Job | str:
        told = NO_QUEUE
        self.poke()
        while True:
            changed = self.changed
            job = claim.facts.best(time.time())
            if job and self.has_audited and job.id not in self.orphaned:
                return job
            if claim.refusal:
                return claim.refusal
            if (queue := self._queue(claim)) != told:
                tell(told := queue)
            await changed.wait()

    def _queue(self, claim: Claim) -> Queue:
        """Return why a model waits for its allocation, and until when."""
        if self.silence:
            return Queue(f"Slurm does not answer: {self.silence}")
        if any(job.runs and job.id in self.orphaned for job in claim.jobs):
            return Queue("llamadoze ends what an earlier llamadoze left in its allocation")
        job, now = next((job for job in claim.jobs if job.waits), None), time.time()
        if job is None:
            unknown = "Slurm has not answered yet"
            return Queue("llamadoze asks Slurm for an allocation" if self.has_audited else unknown)
        until = inf if job.starts is None else trio.current_time() + max(0.0, job.starts - now)
        return Queue(queued_told(job, now), until)

    def stir(self) -> None:
        """Wake all tasks that wait for a change."""
        self.changed.set()
        self.changed = trio.Event()

    def must_leave(self, holding: Holding, job: str) -> None:
        """Take note that Slurm has told a job to end."""
        self.claim(holding).leaving.add(job)
        self.poke()

    def spare(self, holding: Holding, job: str) -> None:
        """Let a job outlive the daemon."""
        self.claim(holding).spared.add(job)

    def end_of(self, job: str) -> str:
        """Return how a job has ended; empty if it has not ended, or that is not known."""
        return end_told(self.ended[job]) if job in self.ended else ""

    def has_displaced(self, job: str) -> bool:
        """Whether a job has ended without a fault of what ran in it."""
        return job in self.ended and self.ended[job].state in DISPLACING

    async def has(self, holding: Holding, job: str) -> bool:
        """Ask Slurm whether a job still runs; if Slurm does not answer, the last answer counts."""
        await self.looked()
        return any(one.id == job and one.runs for one in self.claim(holding).jobs)

    async def looked(self) -> None:
        """Return after the next look at the cluster."""
        self.poke()
        await self.changed.wait()
