"""The rounds over all allocations: they look at the jobs and do what is due.

Owns the one look at all jobs and its frequency. No job or step that was requested stays without an
owner. `due` decides what is due.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from math import inf

import attrs
import structlog
import trio

from supervisor.clusters import slurm
from supervisor.clusters.claim import Claim
from supervisor.clusters.due import next_change, plan
from supervisor.clusters.keeper import Keeper
from supervisor.clusters.marks import mark_of_owner
from supervisor.clusters.slurm import Job, NotAnswered, Refused

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0  # seconds between looks while something changes
SLOWS_BY = 0.05  # share of the time since the last change
AT_REST = 20.0  # seconds between looks while nothing changes
BETWEEN_AUDITS = 60.0  # seconds between looks for steps without an owner
LONGEST_ENDING = 10.0  # seconds for Slurm to end a step without an owner; then models leave its job
LAST_CHANCE = 20.0  # seconds to give all jobs back when the daemon ends

log: structlog.stdlib.BoundLogger = structlog.get_logger("supervisor")


@attrs.define(eq=False)
class Rounds:
    """Looks at all jobs, again and again.

    Attributes:
        keeper: the keeper of all allocations.
    """

    keeper: Keeper
    _audited_at: float = attrs.field(default=-inf, init=False)
    _told: dict[str, str] = attrs.field(factory=dict, init=False)
    _orphaned_at: dict[str, float] = attrs.field(factory=dict, init=False)

    async def run(self) -> None:
        """Hold what is needed, for as long as the daemon runs."""
        keeper = self.keeper
        while True:
            keeper.poked = trio.Event()
            await self._look()
            if self._is_at_rest:
                await keeper.poked.wait()
            with trio.move_on_after(self._pause()):
                await keeper.poked.wait()
            if keeper.poked.is_set():
                await trio.sleep(FIRST_PAUSE)  # other changes may follow at once

    @property
    def _is_at_rest(self) -> bool:
        """Whether nothing is held, requested, or still unknown."""
        is_known = self.keeper.has_audited and not self._orphaned_at
        return is_known and not any(
            claim.jobs or claim.facts.is_needed or claim.asked_at
            for claim in self.keeper.claims.values()
        )

    def _pause(self) -> float:
        """Return the seconds until the next look: few while something changes."""
        keeper, now = self.keeper, time.time()
        facts = [claim.facts for claim in keeper.claims.values()]
        moves = any(one.moves for one in facts)
        due = min((next_change(one, now) for one in facts), default=inf) - now
        pause = AT_REST
        if moves or keeper.silence or not keeper.has_audited or self._orphaned_at:
            since = SLOWS_BY * (trio.current_time() - keeper.moved_at)
            pause = min(LONGEST_PAUSE, max(FIRST_PAUSE, since))
        return min(pause, max(FIRST_PAUSE, due + FIRST_PAUSE))

    async def _look(self) -> None:
        """Look at all jobs, and do what is due."""
        keeper = self.keeper
        try:
            mine = await self._jobs()
            self._see(mine)
            if trio.current_time() >= self._audited_at + BETWEEN_AUDITS:
                await self._audit(mine)
            for claim in list(keeper.claims.values()):
                await self._do(claim)
        except NotAnswered as error:
            self._note_silence(str(error))
        finally:
            keeper.stir()

    async def _jobs(self) -> list[Job]:
        """Return all jobs of this daemon, including those that ended a short while ago."""
        begins, numbers = mark_of_owner(self.keeper.owner), self.keeper.numbers
        found = await slurm.jobs()
        return [job for job in found if job.comment.startswith(begins) or job.id in numbers]

    def _see(self, mine: Collection[Job]) -> None:
        keeper = self.keeper
        if keeper.silence:
            log.info("Slurm answers again")
        keeper.silence, now = "", time.time()
        keeper.ended = {job.id: job for job in mine if not job.is_live}
        asked = {number for claim in keeper.claims.values() for number in claim.numbers}
        keeper.numbers &= asked | {job.id for job in mine}
        live = {job.id for job in mine if job.is_live}
        self._told = {job: text for job, text in self._told.items() if job in live}
        for claim in keeper.claims.values():
            if claim.see(mine, now):
                keeper.moved_at = trio.current_time()
                self._tell_of(claim)

    def _tell_of(self, claim: Claim) -> None:
        """Log what became of the jobs of an allocation."""
        for job in claim.jobs:
            text = f"runs on {job.node}" if job.runs else "is queued"
            if self._told.get(job.id) != text:
                self._told[job.id] = text
                self._tell(claim, job.id, text)

    def _tell(self, claim: Claim, job: str, what: str) -> None:
        name = claim.holding.name
        log.info(
            f"Job {job} of allocation {name} {what}",
            cluster=claim.holding.cluster,
            allocation=name,
            job=job,
        )

    def _note_silence(self, why: str) -> None:
        keeper = self.keeper
        if not keeper.silence:
            log.warning(
                f"Slurm does not answer ({why}): models serve on, only starts in clusters wait",
                reason=why,
            )
        keeper.silence = why

    async def _do(self, claim: Claim) -> None:
        """Do what is due for one allocation."""
        due = plan(claim.facts, time.time())
        if due.submits and not claim.refusal:
            await self._submit(claim)
        leaving = [model for model, job in claim.users.items() if job in due.left]
        for model in leaving:
            self.keeper.on_leave(model, f"job {claim.users[model]} ends soon, or a newer job runs")
        for job in sorted(due.cancelled - claim.leaving - claim.spared):
            self._tell(claim, job, "is given back")
        claim.leaving |= due.cancelled  # at once: from here on no model is let in
        lost = claim.leaving & claim.numbers - {job.id for job in claim.jobs}
        await slurm.cancel(sorted((due.cancelled | lost) - claim.spared))
        claim.numbers -= lost

    async def _submit(self, claim: Claim) -> None:
        claim.asked_at = time.time()
        try:
            number = await slurm.submit(claim.holding, claim.mark)
        except Refused as error:
            claim.asked_at, claim.refusal = None, f"Slurm refuses its allocation: {error}"
            return
        claim.numbers.add(number)
        self.keeper.numbers.add(number)
        self._tell(claim, number, "was submitted")
        self.keeper.poke()

    # What has no owner.

    async def _audit(self, mine: Collection[Job]) -> None:
        """End what an earlier daemon requested and nothing owns; repeat until all has ended."""
        keeper, live = self.keeper, [job for job in mine if job.is_live]
        known = {job.id for claim in keeper.claims.values() for job in claim.jobs}
        jobs = [job.id for job in live if job.id not in known]
        for job in jobs:
            if self._is_first_seen(job):
                text = f"Job {job} is for no allocation of the configuration; llamadoze cancels it"
                log.warning(text, job=job)
        steps = await self._orphans() if live else []
        keeper.orphaned = {step.partition(".")[0] for step in steps}
        keeper.has_audited = True
        await slurm.cancel([*jobs, *steps])
        if not (jobs or steps):
            self._orphaned_at.clear()
            self._audited_at = trio.current_time()

    def _is_first_seen(self, number: str) -> bool:
        """Whether a job or step without an owner is new; the time of the first look is kept."""
        is_new = number not in self._orphaned_at
        self._orphaned_at.setdefault(number, trio.current_time())
        return is_new

    async def _orphans(self) -> list[str]:
        """Return our steps without an owner; a job whose step does not end takes no more models."""
        keeper, found = self.keeper, []
        spared = {job for claim in keeper.claims.values() for job in claim.spared}
        for step in await slurm.steps():
            job, is_ours = step.id.partition(".")[0], step.name.startswith(f"{keeper.owner}.")
            if not is_ours or step.name in keeper.tokens or job in spared:
                continue
            if self._is_first_seen(step.id):
                text = f"Step {step.id} on {step.node} has no owner; llamadoze ends it"
                log.warning(text, step=step.id)
            elif trio.current_time() > self._orphaned_at[step.id] + LONGEST_ENDING:
                self._leave(job)
            found.append(step.id)
        return found

    def _leave(self, job: str) -> None:
        """Let no model into a job any more, and give the job back when it is empty."""
        for claim in self.keeper.claims.values():
            claim.leaving |= {one.id for one in claim.jobs if one.id == job}

    # The end.

    async def close(self) -> None:
        """Give back all jobs, except those that outlive the daemon; bounded."""
        claims = self.keeper.claims.values()
        spared = {job for claim in claims for job in claim.spared}
        held = [number for claim in claims for number in claim.held if number not in spared]
        if not held and not any(claim.asked_at for claim in claims):
            return
        why = "it took too long"
        with trio.move_on_after(LAST_CHANCE):
            try:
                if any(claim.asked_at for claim in claims):  # the job's number may not be known
                    held += [job.id for job in await self._jobs() if job.is_live]
                await slurm.cancel(sorted({*held} - spared))
            except NotAnswered as error:
                why = str(error)
            else:
                return
        self._tell_what_is_left(held, why)

    def _tell_what_is_left(self, jobs: Iterable[str], why: str) -> None:
        names = " ".join(jobs)
        log.error(
            f"Jobs may still run ({why}). The next llamadoze with this state folder ends them; "
            f"to end them now, run scancel {names}",
            reason=why,
        )
