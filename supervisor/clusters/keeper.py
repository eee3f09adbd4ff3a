"""Who holds the allocations of one cluster: asks for them, looks at them, and gives them back.

Owns the one look at all jobs, and that no job or step that was asked for is without an owner. What
is due is decided in `claims`; what runs in an allocation is the models'.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial

import attrs
import structlog
import trio

from configschema import Holding
from supervisor.clusters import slurm
from supervisor.clusters.claims import (
    Facts,
    end_told,
    mark_of,
    mark_of_owner,
    next_change,
    of_mark,
    plan,
    queued_told,
)
from supervisor.clusters.slurm import Job, NotAnswered, Refused
from supervisor.states.durations import seconds
from supervisor.states.racing import race

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0  # seconds between looks while something moves
SLOWS_BY = 0.05  # of the time since the last change
AT_REST = 20.0  # seconds between looks while nothing does
BETWEEN_AUDITS = 60.0  # seconds between looks for steps without an owner
UNSEEN = 10.0  # seconds for a job that was asked for to be listed
LAST_CHANCE = 20.0  # seconds to give all back when the daemon ends

log: structlog.stdlib.BoundLogger = structlog.get_logger("supervisor")


class NoAllocation(Exception):
    """Nothing is held for a model, nor will be; the text says why."""


@attrs.define(eq=False)
class Claim:
    """One allocation, as it stands.

    Attributes:
        holding: what is asked for.
        mark: of its jobs.
        jobs: those that have not ended.
        users: the models that have servers in it, and the number of the job of each.
        waiting: the models that wait for it.
        leaving: the numbers of jobs that Slurm has told to end.
        spared: the numbers of jobs that outlive the daemon.
        refusal: why it cannot be had.
        asked_at: when a job was asked for that is not listed yet.
        empty_since: when it was last needed.
        is_current: whether the configuration has it.
    """

    holding: Holding
    mark: str
    jobs: tuple[Job, ...] = ()
    users: dict[str, str] = attrs.field(factory=dict, init=False)
    waiting: set[str] = attrs.field(factory=set, init=False)
    leaving: set[str] = attrs.field(factory=set, init=False)
    spared: set[str] = attrs.field(factory=set, init=False)
    refusal: str = attrs.field(default="", init=False)
    asked_at: float | None = attrs.field(default=None, init=False)
    empty_since: float = attrs.field(factory=time.time, init=False)
    is_current: bool = attrs.field(default=True, init=False)

    @property
    def facts(self) -> Facts:
        """How it stands."""
        wanted = self.holding.allocation
        return Facts(
            jobs=self.jobs,
            in_use=frozenset(self.users.values()),
            leaving=frozenset(self.leaving),
            wanted=bool(self.waiting),
            is_asked=self.asked_at is not None,
            empty_since=self.empty_since,
            idle=wanted.idle,
            renew=wanted.renew,
            is_current=self.is_current,
        )

    def see(self, found: Iterable[Job], now: float) -> bool:
        """Take note of its jobs as Slurm lists them; return whether something has changed."""
        listed = of_mark(found, self.mark)
        live = tuple(job for job in listed if job.waits or job.runs)
        ended = {job.id: job for job in listed if not (job.waits or job.runs)}
        for job in self.jobs:
            if job.waits and job.id not in {one.id for one in live} and self.waiting:
                self.refusal = f"{end_told(ended.get(job.id, job))} before it began"
        if live or (self.asked_at is not None and now > self.asked_at + UNSEEN):
            self.asked_at = None
        has_changed = self.jobs != live
        self.jobs = live
        return has_changed


@attrs.define(eq=False)
class Keeper:
    """The allocations of one cluster.

    Attributes:
        cluster: its name in the configuration.
        owner: what marks all that this daemon asks for.
        on_leave: called with a model's id and the reason when its server must leave its job.
        claims: by their marks.
        tokens: the names of steps that have an owner.
        ended: how jobs ended that are listed yet, by their numbers.
        silence: why nothing is known of the cluster; nothing while it answers.
    """

    cluster: str
    owner: str
    on_leave: Callable[[str, str], None] = lambda _, __: None
    claims: dict[str, Claim] = attrs.field(factory=dict, init=False)
    tokens: set[str] = attrs.field(factory=set, init=False)
    ended: dict[str, Job] = attrs.field(factory=dict, init=False)
    silence: str = attrs.field(default="", init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _poked: trio.Event = attrs.field(factory=trio.Event, init=False)
    _has_audited: bool = attrs.field(default=False, init=False)
    _moved_at: float = attrs.field(factory=trio.current_time, init=False)
    _told: dict[str, str] = attrs.field(factory=dict, init=False)
    _addresses: dict[str, str] = attrs.field(factory=dict, init=False)

    def claim(self, holding: Holding) -> Claim:
        """Return what stands for an allocation."""
        mark = mark_of(self.owner, holding)
        claim = self.claims.setdefault(mark, Claim(holding, mark))
        claim.holding = holding  # what says how long it is kept may be another
        return claim

    def change(self, holdings: Iterable[Holding]) -> None:
        """Heed what the configuration has now."""
        current = {self.claim(holding).mark for holding in holdings}
        for mark, claim in self.claims.items():
            claim.is_current = mark in current
        self.poke()

    def poke(self) -> None:
        """Look soon: something has changed, or may have."""
        self._moved_at = trio.current_time()
        self._poked.set()

    # What models ask for.

    @asynccontextmanager
    async def held(
        self,
        holding: Holding,
        model: str,
        tell: Callable[[str], None],
        unwanted: Callable[[], Awaitable[None]],
    ) -> AsyncIterator[Job]:
        """Have a job for a model for as long as the block lasts.

        Args:
            holding: what the model needs.
            model: its id.
            tell: told why it waits, whenever that is another.
            unwanted: returns when nobody waits for it any more.

        Raises:
            NoAllocation: there will be none; without a text if it was unwanted.
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
        """Have a model in a job that an earlier daemon has asked for."""
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
        return f"no allocation within {seconds(limit)} (queueTimeout): {self._why_it_waits(claim)}"

    async def _granted(self, claim: Claim, tell: Callable[[str], None]) -> Job | str:
        told = ""
        self.poke()
        while True:
            changed = self._changed
            job = claim.facts.best(time.time())
            if job and self._has_audited:
                return job
            if claim.refusal:
                return claim.refusal
            if (text := self._why_it_waits(claim)) != told:
                tell(told := text)
            await changed.wait()

    def _why_it_waits(self, claim: Claim) -> str:
        if self.silence:
            return f"Slurm does not answer: {self.silence}"
        queued = next((job for job in claim.jobs if job.waits), None)
        return queued_told(queued, time.time()) if queued else "an allocation is asked of Slurm"

    async def address_of(self, node: str) -> str:
        """Return the address of a node.

        Raises:
            NotAnswered: that is not known.
        """
        if node not in self._addresses:
            self._addresses[node] = await slurm.address_of(node)
        return self._addresses[node]

    def must_leave(self, holding: Holding, job: str) -> None:
        """Take note that Slurm has told a job to end."""
        self.claim(holding).leaving.add(job)
        self.poke()

    def spare(self, holding: Holding, job: str) -> None:
        """Let a job outlive the daemon."""
        self.claim(holding).spared.add(job)

    def end_of(self, job: str) -> str:
        """Return how a job has ended; nothing if it has not, or that is not known."""
        return end_told(self.ended[job]) if job in self.ended else ""

    async def looked(self) -> None:
        """Return when the cluster has answered once more."""
        self.poke()
        await self._changed.wait()

    # The one who looks.

    async def run(self) -> None:
        """Hold what is needed, for as long as the daemon runs."""
        audited_at = -BETWEEN_AUDITS
        while True:
            self._poked = trio.Event()
            is_audit = trio.current_time() >= audited_at + BETWEEN_AUDITS
            if await self._look(audits=is_audit) and is_audit:
                audited_at = trio.current_time()
            if self._is_at_rest:
                await self._poked.wait()
            with trio.move_on_after(self._pause()):
                await self._poked.wait()
            if self._poked.is_set():
                await trio.sleep(FIRST_PAUSE)  # others may have something, too

    @property
    def _is_at_rest(self) -> bool:
        """Whether nothing is held, asked for, or left to be known."""
        return self._has_audited and not any(
            claim.jobs or claim.facts.is_needed or claim.asked_at for claim in self.claims.values()
        )

    def _pause(self) -> float:
        """Return the seconds until the next look: few while something moves."""
        facts, now = [claim.facts for claim in self.claims.values()], time.time()
        moves = any(one.wanted or one.is_asked or one.leaving for one in facts)
        due = min((next_change(one, now) for one in facts), default=float("inf")) - now
        since = SLOWS_BY * (trio.current_time() - self._moved_at)
        pause = min(LONGEST_PAUSE, max(FIRST_PAUSE, since)) if moves or self.silence else AT_REST
        return min(pause, max(FIRST_PAUSE, due + FIRST_PAUSE))

    async def _look(self, *, audits: bool) -> bool:
        """Look at all jobs, and do what is due; return whether Slurm has answered."""
        try:
            found = await slurm.jobs()
            self._see(found)
            if audits:
                await self._audit(found)
            for claim in list(self.claims.values()):
                await self._do(claim)
        except NotAnswered as error:
            self._silent(str(error))
            return False
        finally:
            self._changed.set()
            self._changed = trio.Event()
        return True

    def _see(self, found: list[Job]) -> None:
        if self.silence:
            log.info(f"Slurm answers again: cluster {self.cluster}", cluster=self.cluster)
        self.silence, now = "", time.time()
        mine = [job for job in found if job.comment.startswith(mark_of_owner(self.owner))]
        self.ended = {job.id: job for job in mine if not (job.waits or job.runs)}
        for claim in self.claims.values():
            if claim.see(mine, now):
                self._moved_at = trio.current_time()
                self._tell_of(claim)

    def _tell_of(self, claim: Claim) -> None:
        """Say what became of the jobs of an allocation."""
        for job in claim.jobs:
            text = f"runs on {job.node}" if job.runs else "is queued"
            if self._told.get(job.id) != text:
                self._told[job.id] = text
                name = claim.holding.name
                log.info(
                    f"Job {job.id} of allocation {name} {text}",
                    cluster=self.cluster,
                    allocation=name,
                    job=job.id,
                    reason=job.reason or None,
                )

    def _silent(self, why: str) -> None:
        if not self.silence:
            log.warning(
                f"Slurm does not answer; what is known of cluster {self.cluster} stays as it is, "
                f"and requests go on: {why}",
                cluster=self.cluster,
                reason=why,
            )
        self.silence = why

    async def _do(self, claim: Claim) -> None:
        """Do what is due for one allocation."""
        due = plan(claim.facts, time.time())
        if due.submits and not claim.refusal:
            await self._submit(claim)
        for model in [model for model, job in claim.users.items() if job in due.left]:
            self.on_leave(model, f"its job {claim.users[model]} ends soon, or another is there")
        await self._give_back(claim, due.cancelled)

    async def _submit(self, claim: Claim) -> None:
        claim.asked_at = time.time()
        try:
            number = await slurm.submit(claim.holding, claim.mark)
        except Refused as error:
            claim.asked_at, claim.refusal = None, f"Slurm refuses the allocation: {error}"
            return
        name = claim.holding.name
        log.info(
            f"Job {number} was submitted for allocation {name}",
            cluster=self.cluster,
            allocation=name,
            job=number,
        )
        self.poke()

    async def _give_back(self, claim: Claim, jobs: Iterable[str]) -> None:
        for job in sorted(jobs):
            name = claim.holding.name
            log.info(
                f"Job {job} of allocation {name} is given back",
                cluster=self.cluster,
                allocation=name,
                job=job,
            )
        await slurm.cancel(sorted(jobs))

    async def _audit(self, found: list[Job]) -> None:
        """End what an earlier daemon has asked for and nobody owns."""
        known = {job.id for claim in self.claims.values() for job in claim.jobs}
        begins = mark_of_owner(self.owner)
        live = {job.id: job for job in found if job.waits or job.runs}
        unknown = [
            n for n, job in live.items() if job.comment.startswith(begins) and n not in known
        ]
        for job in unknown:
            text = f"Job {job} is of no allocation that the configuration has; cancelling it"
            log.warning(text, cluster=self.cluster, job=job)
        orphans = []
        if live:
            tokens = f"{self.owner}."
            orphans = [
                step
                for step in await slurm.steps()
                if step.name.startswith(tokens) and step.name not in self.tokens
            ]
        for step in orphans:
            text = f"Step {step.id} on {step.node} has no owner; ending it"
            log.warning(text, cluster=self.cluster, step=step.id)
        await slurm.cancel([*unknown, *(step.id for step in orphans)])
        self._has_audited = True

    async def close(self) -> None:
        """Give back all that is held, but for what outlives the daemon; bounded."""
        held = [
            job.id
            for claim in self.claims.values()
            for job in claim.jobs
            if job.id not in claim.spared
        ]
        asked = any(claim.asked_at is not None for claim in self.claims.values())
        with trio.move_on_after(LAST_CHANCE) as patience:
            try:
                if asked:
                    begins = mark_of_owner(self.owner)
                    spared = {job for claim in self.claims.values() for job in claim.spared}
                    found = await slurm.jobs()
                    live = [job for job in found if job.waits or job.runs]
                    held = [
                        job.id
                        for job in live
                        if job.comment.startswith(begins) and job.id not in spared
                    ]
                await slurm.cancel(held)
            except NotAnswered as error:
                self._tell_what_is_left(held, str(error))
        if patience.cancelled_caught:
            self._tell_what_is_left(held, "it took too long")

    def _tell_what_is_left(self, jobs: list[str], why: str) -> None:
        if jobs:
            names = " ".join(jobs)
            log.error(
                f"Jobs may still be held: {why}. The next llamadoze with this state folder ends "
                f"them; or run scancel {names}",
                cluster=self.cluster,
                reason=why,
            )
