"""What has to be done about one allocation of a cluster. Pure.

Owns when it is asked for, when the next one is, when its models leave it, and when it is given
back. Doing any of it is the keeper's.
"""

from __future__ import annotations

from math import inf

import attrs

from supervisor.clusters.slurm import Job

LINGER = 2.0  # seconds that a queued job is kept when nobody waits: the next may ask for the same
MARGIN = 60.0  # seconds before its end that an allocation takes no more, and is left
LONGEST_LEAD = 900.0  # seconds before that that the next one is asked for
PART_OF_ITS_TIME, MOST_OF_ITS_TIME = 0.1, 0.9  # of an allocation that is short


@attrs.frozen(kw_only=True)
class Facts:
    """How one allocation stands.

    Attributes:
        jobs: that were asked for it and have not ended.
        in_use: the numbers of those in which models have servers.
        leaving: the numbers of those that were told to end, by Slurm or by us.
        wanted: whether somebody waits for it.
        is_asked: whether a job was asked for that is not listed yet.
        empty_since: when the last model left, or the last one that waited.
        idle: seconds that it is kept then.
        renew: seconds before its end that the next one is asked for; None is a part of its time.
        is_current: whether the configuration has it.
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
        """Whether somebody is in it, or waits for it."""
        return self.wanted or bool(self.in_use)

    @property
    def lacks_one(self) -> bool:
        """Whether somebody waits, or is in a job that has not ended yet."""
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
        """Return the job for who starts now: the newest."""
        found = [job for job in self.jobs if self.takes(job, now)]
        return max(found, key=lambda job: int(job.id), default=None)


@attrs.frozen(kw_only=True)
class Plan:
    """What has to be done.

    Attributes:
        submits: whether a job is asked for.
        cancelled: the numbers of jobs that are given back.
        left: the numbers of jobs that models must leave.
    """

    submits: bool = False
    cancelled: frozenset[str] = frozenset()
    left: frozenset[str] = frozenset()


def plan(facts: Facts, now: float) -> Plan:
    """Decide about one allocation.

    Args:
        facts: how it stands.
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
    """Whether nobody has needed it for so long."""
    if not facts.is_current:
        return True
    return not facts.is_needed and now >= facts.empty_since + patience


def _length(job: Job) -> float:
    return (job.ends or 0.0) - (job.starts or 0.0)


def _end_of_service(job: Job) -> float:
    """Return when a job takes no more models, and those in it leave."""
    if job.ends is None:
        return inf
    return job.ends - min(MARGIN, PART_OF_ITS_TIME * _length(job))


def _renewal(job: Job, renew: float | None) -> float:
    """Return when the next job is asked for."""
    if job.ends is None:
        return inf
    usual = min(LONGEST_LEAD, PART_OF_ITS_TIME * _length(job))
    lead = usual if renew is None else min(renew, MOST_OF_ITS_TIME * _length(job))
    return min(job.ends - lead, _end_of_service(job))


def next_change(facts: Facts, now: float) -> float:
    """Return when something will have to be done, if nothing else happens."""
    times = [facts.empty_since + patience for patience in (LINGER, facts.idle)]
    for job in facts.jobs:
        times += [_renewal(job, facts.renew), _end_of_service(job)]
    return min((one for one in times if one > now), default=inf)
