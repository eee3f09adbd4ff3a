"""What llamadoze does next for one allocation, decided from the allocation's state."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.clusters.due import Facts, next_change, plan
from supervisor.clusters.slurm import Job

NOW = 1_000_000.0
HOUR = 3600.0


def queued(number: str = "1", reason: str = "Resources") -> Job:
    return Job(id=number, state="PENDING", reason=reason)


def runs(number: str = "1", since: float = 10.0, ends_in: float | None = None) -> Job:
    ends = None if ends_in is None else NOW + ends_in
    return Job(id=number, state="RUNNING", node="n1", starts=NOW - since, ends=ends)


def test_nothing_is_done_for_an_allocation_that_nobody_wants() -> None:
    """An allocation that nobody wants costs nothing."""
    due = plan(Facts(), NOW)
    assert not due.submits
    assert not due.cancelled


def test_it_is_asked_for_once_when_somebody_waits() -> None:
    """llamadoze submits no second job while the first is on its way, queued or running."""
    assert plan(Facts(wanted=True), NOW).submits
    assert not plan(Facts(wanted=True, is_asked=True), NOW).submits
    assert not plan(Facts(wanted=True, jobs=(queued(),)), NOW).submits
    assert not plan(Facts(wanted=True, jobs=(runs(),)), NOW).submits


def test_a_queued_job_is_cancelled_when_nobody_waits_any_more() -> None:
    """llamadoze waits a moment first, as another request may need the same job."""
    facts = Facts(jobs=(queued(),), empty_since=NOW)
    assert not plan(facts, NOW + 1).cancelled
    assert plan(facts, NOW + 3).cancelled == {"1"}


def test_a_running_job_is_kept_for_its_idle_time() -> None:
    """A job with a model in it is not idle."""
    facts = Facts(jobs=(runs(),), empty_since=NOW, idle=300)
    assert not plan(facts, NOW + 299).cancelled
    assert plan(facts, NOW + 300).cancelled == {"1"}
    used = Facts(jobs=(runs(),), in_use=frozenset({"1"}), empty_since=NOW, idle=300)
    assert not plan(used, NOW + 3000).cancelled


def test_the_next_one_is_asked_for_before_the_first_ends() -> None:
    """It is submitted a tenth of the job's time before the end, or as early as `renew` says."""
    job = runs(since=2 * HOUR, ends_in=600)
    used = frozenset({"1"})
    assert plan(Facts(jobs=(job,), in_use=used), NOW).submits
    assert not plan(Facts(jobs=(job,), in_use=used, renew=300), NOW).submits
    assert not plan(Facts(jobs=(job,)), NOW).submits


def test_models_leave_a_job_when_the_next_one_runs() -> None:
    """llamadoze cancels the first job when its models have left."""
    old, new = runs("9", since=2 * HOUR, ends_in=600), runs("10", ends_in=2 * HOUR)
    both = Facts(jobs=(old, new), in_use=frozenset({"9"}))
    assert plan(both, NOW).left == {"9"}
    assert not plan(both, NOW).cancelled
    assert plan(Facts(jobs=(old, new), in_use=frozenset({"10"})), NOW).cancelled == {"9"}


def test_models_leave_a_job_shortly_before_its_end() -> None:
    """They leave even if no next job is there; a model that starts then waits for the next job."""
    job = runs(since=2 * HOUR, ends_in=50)
    facts = Facts(jobs=(job,), in_use=frozenset({"1"}), wanted=True)
    assert plan(facts, NOW).left == {"1"}
    assert facts.best(NOW) is None
    assert plan(facts, NOW).submits


def test_a_job_that_slurm_tells_to_end_takes_nobody() -> None:
    """A preemption counts as an end like any other."""
    facts = Facts(jobs=(runs(),), in_use=frozenset({"1"}), leaving=frozenset({"1"}), wanted=True)
    assert facts.best(NOW) is None
    assert plan(facts, NOW).left == {"1"}
    assert plan(facts, NOW).submits


def test_a_job_without_a_limit_is_never_renewed() -> None:
    """A job without a time limit never ends, so it needs no next job."""
    used = Facts(jobs=(runs(),), in_use=frozenset({"1"}))
    assert not plan(used, NOW + 1e9).submits
    assert next_change(used, NOW) == float("inf")


def test_what_the_configuration_has_no_more_is_let_go() -> None:
    """llamadoze cancels a job that the configuration no longer has when its models have left."""
    facts = Facts(jobs=(runs(), queued("2")), in_use=frozenset({"1"}), is_current=False)
    assert plan(facts, NOW).left == {"1"}
    assert plan(facts, NOW).cancelled == {"2"}
    assert plan(Facts(jobs=(runs(),), is_current=False), NOW).cancelled == {"1"}


def test_one_job_is_enough() -> None:
    """If several jobs are queued, as after a slow controller, llamadoze keeps only the first."""
    facts = Facts(jobs=(queued("1"), queued("2")), wanted=True)
    assert plan(facts, NOW).cancelled == {"2"}


jobs = st.lists(
    st.builds(
        Job,
        id=st.integers(1, 99).map(str),
        state=st.sampled_from(["PENDING", "RUNNING"]),
        node=st.just("n1"),
        starts=st.floats(NOW - HOUR, NOW),
        ends=st.none() | st.floats(NOW - 10, NOW + HOUR),
    ),
    max_size=4,
    unique_by=lambda job: job.id,
)


@given(jobs=jobs, wanted=st.booleans(), is_current=st.booleans(), data=st.data())
def test_nothing_that_is_used_is_cancelled_and_nothing_is_asked_for_twice(
    jobs: list[Job], wanted: bool, is_current: bool, data: st.DataObject
) -> None:
    """This is true of any jobs, whatever state the allocation is in."""
    running = [job.id for job in jobs if job.runs]
    in_use = data.draw(st.sets(st.sampled_from(running)) if running else st.just(set()))
    facts = Facts(jobs=tuple(jobs), in_use=frozenset(in_use), wanted=wanted, is_current=is_current)
    due = plan(facts, NOW)
    assert not due.cancelled & facts.in_use
    assert due.left <= facts.in_use
    assert not (due.submits and any(job.waits for job in jobs))
    if best := facts.best(NOW):
        assert best.id not in due.left
        assert not (facts.is_needed and best.id in due.cancelled)


@pytest.mark.parametrize("ends_in", [30, 90, 600, 7200])
def test_the_next_look_comes_in_time(ends_in: float) -> None:
    """The next look comes in time for the renewal and for the end of the job."""
    facts = Facts(jobs=(runs(since=HOUR, ends_in=ends_in),), in_use=frozenset({"1"}))
    now = NOW
    while not plan(facts, now).left:
        following = next_change(facts, now)
        assert now < following <= NOW + ends_in
        now = following


def test_a_job_that_was_lost_is_asked_for_again_only_if_somebody_waits() -> None:
    """Models of the lost job sleep or finish their requests, and need no new job for that."""
    lost = Facts(in_use=frozenset({"1"}), idle=300)
    assert not plan(lost, NOW).submits
    assert plan(Facts(in_use=frozenset({"1"}), wanted=True), NOW).submits
