"""What is due for one allocation of a cluster. Pure.

Owns when a job is requested, when the next job is, when models leave a job, and when a job is given
back. The keeper does these things.
"""

from __future__ import annotations

from math import inf

import attrs

from supervisor.clusters.slurm import Job

LINGER = 2.0  # seconds that a queued job is kept without need: the next request may want the same
MARGIN = 60.0  # seconds before its end in which a job takes no more models, and models leave
LONGEST_LEAD = 900.0  # seconds before its end at which the next job is requested
PART_OF_ITS_TIME, MOST_OF_ITS_TIME = 0.1, 0.9  # shares of the time of a short allocation


@attrs.frozen(kw_only=True)
class Facts:
    """The present state of one allocation.

    Attributes:
        jobs: the jobs that were requested for it and have not ended.
        in_use: the numbers of the jobs in which models have servers.
        leaving: the numbers of the jobs that Slurm or llamadoze has told to end.
        wanted: whether a model waits for it.
        is_asked: whether a job was requested that is not listed yet.
        empty_since: when the last model left, or when the last one stopped waiting.
        idle: seconds that it is kept after that.
        renew: seconds before a job's end at which the next is requested; None is a share of its
        time.
        is_current: whether the configuration contains it.
    """

    jobs: tuple[Job, ...] = ()
    in_use: frozenset[str] = frozenset()
    leaving: frozenset[str] = frozenset()
    wanted: bool = False
    is_asked: bool = False
    empty_since: float = 0.0
    idle: float = 0.0
    renew: float | None = None
    is_current: bool = True

    @property
    def is_needed(self) -> bool:
        """Whether a model is in it, or waits for it."""
        return self.wanted or bool(self.in_use)

    @property
    def lacks_one(self) -> bool:
        """Whether a model waits, or is in a job that has not ended yet."""
        return self.wanted or any(job.id in self.in_use for job in self.jobs)

    @property
    def moves(self) -> bool:
        """Whether something is about to change."""
        waits = any(job.waits for job in self.jobs)
        return self.wanted or self.is_asked or bool(self.leaving) or waits

    def takes(self, job: Job, now: float) -> bool:
        """Whether a model may be started in a job."""
        ends_soon = job.id in self.leaving or now >= _end_of_service(job)
        return self.is_current and job.runs and not ends_soon

    def best(self, now: float) -> Job | None:
        """Return the job in which a model is started now: the newest one."""
        found = [job for job in self.jobs if self.takes(job, now)]
        return max(found, key=lambda job: int(job.id), default=None)


@attrs.frozen(kw_only=True)
class Plan:
    """What is due.

    Attributes:
        submits: whether to request a job.
        cancelled: the numbers of jobs to give back.
        left: the numbers of jobs that models must leave.
    """

    submits: bool = False
    cancelled: frozenset[str] = frozenset()
    left: frozenset[str] = frozenset()


def plan(facts: Facts, now: float) -> Plan:
    """Decide what is due for one allocation.

    Args:
        facts: its present state.
        now: seconds since 1970, as all times of Slurm.
    """
    best = facts.best(now)
    queued = [job for job in facts.jobs if job.waits and job.id not in facts.leaving]
    running = [job for job in facts.jobs if job.runs]
    is_short = best is None or now >= _renewal(best, facts.renew)
    submits = facts.is_current and facts.lacks_one and is_short and not queued
    return Plan(
        submits=submits and not facts.is_asked,
        left=frozenset(job.id for job in running if job.id in facts.in_use and job is not best),
        cancelled=frozenset(
            [job.id for job in running if _is_given_back(job, best, facts, now)]
            + [job.id for job in queued[not _is_past(facts, LINGER, now) :]]
            + [job.id for job in facts.jobs if job.waits and job not in queued]
        ),
    )


def _is_given_back(job: Job, best: Job | None, facts: Facts, now: float) -> bool:
    if job.id in facts.in_use:
        return False
    return job is not best or _is_past(facts, facts.idle, now)


def _is_past(facts: Facts, patience: float, now: float) -> bool:
    """Whether no model has needed it for this long."""
    if not facts.is_current:
        return True
    return not facts.is_needed and now >= facts.empty_since + patience


def _length(job: Job) -> float:
    return (job.ends or 0.0) - (job.starts or 0.0)


def _end_of_service(job: Job) -> float:
    """Return when a job takes no more models, and its models leave."""
    if job.ends is None:
        return inf
    return job.ends - min(MARGIN, PART_OF_ITS_TIME * _length(job))


def _renewal(job: Job, renew: float | None) -> float:
    """Return when the next job is requested."""
    if job.ends is None:
        return inf
    usual = min(LONGEST_LEAD, PART_OF_ITS_TIME * _length(job))
    lead = usual if renew is None else min(renew, MOST_OF_ITS_TIME * _length(job))
    return min(job.ends - lead, _end_of_service(job))


def next_change(facts: Facts, now: float) -> float:
    """Return when something will be due, if nothing else happens."""
    times = [facts.empty_since + patience for patience in (LINGER, facts.idle)]
    for job in facts.jobs:
        times += [_renewal(job, facts.renew), _end_of_service(job)]
    return min((one for one in times if one > now), default=inf)
