"""One allocation of a cluster: its jobs, the models in them, and the models that wait.

Owns what is known of the allocation from one look at all jobs to the next. `due` decides what is
due.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import attrs

from configschema import Holding
from supervisor.clusters.due import Facts
from supervisor.clusters.marks import end_told
from supervisor.clusters.slurm import Job

UNSEEN = 10.0  # seconds for a job that was submitted to be listed


@attrs.define(eq=False)
class Claim:
    """One allocation and what is known of it.

    Attributes:
        holding: what is requested from Slurm.
        mark: the mark of its jobs.
        jobs: the jobs that have not ended.
        numbers: the numbers of jobs that were submitted and are not known to have ended.
        users: the models that have servers in it, and the number of each model's job.
        waiting: the models that wait for it.
        leaving: the numbers of jobs that Slurm or llamadoze has told to end.
        spared: the numbers of jobs that outlive the daemon.
        gpus: the names of a job's GPUs, by the job's number, once they were seen.
        refusal: why Slurm does not grant it.
        asked_at: when a job was requested that is not listed yet.
        empty_since: when it was last needed.
        is_current: whether the configuration contains it.
    """

    holding: Holding
    mark: str
    jobs: tuple[Job, ...] = ()
    numbers: set[str] = attrs.field(factory=set, init=False)
    users: dict[str, str] = attrs.field(factory=dict, init=False)
    waiting: set[str] = attrs.field(factory=set, init=False)
    leaving: set[str] = attrs.field(factory=set, init=False)
    spared: set[str] = attrs.field(factory=set, init=False)
    gpus: dict[str, frozenset[str]] = attrs.field(factory=dict, init=False)
    refusal: str = attrs.field(default="", init=False)
    asked_at: float | None = attrs.field(default=None, init=False)
    empty_since: float = attrs.field(factory=time.time, init=False)
    is_current: bool = attrs.field(default=True, init=False)

    @property
    def facts(self) -> Facts:
        """The present state, as `due` needs it."""
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

    def _give_up_on_what_is_not_listed(self) -> None:
        self.asked_at = None
        if self.numbers:  # otherwise it is not known whether there is a job
            names = ", ".join(sorted(self.numbers))
            self.refusal = f"Slurm accepted job {names} but does not list it; llamadoze cancels it"
            self.leaving |= self.numbers

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known of the allocation that must be kept."""
        return not (self.held or self.users or self.waiting or self.asked_at)

    @property
    def held(self) -> set[str]:
        """The numbers of all jobs that may not have ended."""
        return self.numbers | {job.id for job in self.jobs}

    def see(self, found: Iterable[Job], now: float) -> bool:
        """Take note of its jobs as Slurm lists them; return whether something has changed."""
        listed = [job for job in found if self.mark == job.comment or job.id in self.numbers]
        live = tuple(job for job in listed if job.is_live)
        ended = {job.id: job for job in listed if not job.is_live}
        for job in self.jobs:
            is_gone = job.waits and job.id not in {one.id for one in live}
            if is_gone and self.waiting and job.id not in self.leaving:
                self.refusal = end_told(ended.get(job.id, job), " before it began")
        if live:
            self.asked_at = None
        elif self.asked_at is not None and now > self.asked_at + UNSEEN:
            self._give_up_on_what_is_not_listed()
        self.numbers -= ended.keys()
        self.leaving &= {job.id for job in live} | self.numbers
        self.gpus = {job.id: self.gpus[job.id] for job in live if job.id in self.gpus}
        has_changed = self.jobs != live
        self.jobs = live
        return has_changed
