"""What a keeper holds of a cluster, and for how long; Slurm is made up, the clock is Trio's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import MockClock

from configschema import Config, parse
from supervisor.clusters.keeper import Keeper, NoAllocation
from supervisor.clusters.keepers import open_clusters
from supervisor.clusters.marks import mark_of
from supervisor.clusters.slurm import Job, Step
from supervisor.states.snapshot import Queue
from tests.supervisor.clusters.fakeslurm import BEGAN, FakeSlurm, config_of, holding_of, keeping


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """A Slurm in which nothing runs."""
    one = FakeSlurm()
    one.install(monkeypatch)
    return one


@asynccontextmanager
async def held(
    keeper: Keeper, config: Config, model: str = "a", told: list[Queue] | None = None
) -> AsyncIterator[Job]:
    said: list[Queue] = [] if told is None else told
    async with keeper.held(
        holding_of(config, model), model, said.append, trio.sleep_forever
    ) as job:
        yield job


async def test_one_job_is_asked_for_whoever_waits(
    fake: FakeSlurm, autojump_clock: MockClock
) -> None:
    """The keeper submits one job for both models, and lets both in when the job runs."""
    config, numbers = config_of(), []

    async with keeping(config) as (keeper, _), trio.open_nursery() as nursery:

        async def use(model: str) -> None:
            async with held(keeper, config, model) as job:
                numbers.append(job.id)

        nursery.start_soon(use, "a")
        nursery.start_soon(use, "b")
    assert numbers == ["1", "1"]
    assert len(fake.submitted) == 1


async def test_who_waits_is_told_why_and_until_when(
    fake: FakeSlurm, autojump_clock: MockClock
) -> None:
    """A model that waits gets Slurm's reason, and gets it again when it changes."""
    fake.starts_in = 50
    config, told = config_of(), list[Queue]()
    async with keeping(config) as (keeper, _), held(keeper, config, told=told):
        pass
    assert told[:2] == [
        Queue("Slurm has not answered yet"),
        Queue("llamadoze asks Slurm for an allocation"),
    ]
    assert "job 1 waits in Slurm's queue (Resources)" in told[-1].why
    assert told[-1].until == pytest.approx(50, abs=2)


async def test_a_wait_has_a_limit_and_nothing_stays_in_the_queue(
    fake: FakeSlurm, autojump_clock: MockClock
) -> None:
    """The error names the key that sets the limit."""
    fake.starts_in = None
    config = config_of(timeout=30)
    async with keeping(config) as (keeper, _):
        with pytest.raises(NoAllocation, match="within 30s \\(queueTimeout\\)"):
            async with held(keeper, config):
                pass
        assert trio.current_time() == pytest.approx(30, abs=1)
        await trio.sleep(5)
        assert fake.live == []


async def test_a_wait_that_nobody_wants_any_more_ends_at_once(
    fake: FakeSlurm, autojump_clock: MockClock
) -> None:
    """NoAllocation then has no text, because nobody is left to read it."""
    fake.starts_in = None
    config = config_of()

    async def in_a_while() -> None:
        await trio.sleep(3)

    async with keeping(config) as (keeper, _):
        with pytest.raises(NoAllocation, match=r"^$"):
            async with keeper.held(holding_of(config), "a", lambda _: None, in_a_while):
                pass
        assert trio.current_time() == 3


async def test_who_asks_again_at_once_keeps_the_place_in_the_queue(
    fake: FakeSlurm, autojump_clock: MockClock
) -> None:
    """The keeper does not give the job up in the moment between two models that want it."""
    fake.starts_in = 20
    config = config_of()
    async with keeping(config) as (keeper, _):
        with trio.move_on_after(5):
            async with held(keeper, config, "a"):
                pass
        async with held(keeper, config, "b") as job:
            assert job.id == "1"
    assert fake.submitted == [mark_of("us", holding_of(config))]


async def test_a_refusal_is_final_for_who_waits_and_not_for_the_next(
    fake: FakeSlurm, autojump_clock: MockClock
) -> None:
    """The next request submits a job again, as the fault may have been fixed."""
    fake.refusal = "Invalid account"
    config = config_of()
    async with keeping(config) as (keeper, _):
        with pytest.raises(NoAllocation, match="Invalid account"):
            async with held(keeper, config):
                pass
        fake.refusal = ""
        async with held(keeper, config):
            pass


async def test_a_job_that_ends_in_the_queue_is_no_allocation(
    fake: FakeSlurm, autojump_clock: MockClock
) -> None:
    """Somebody has cancelled the job and does not want llamadoze to submit it again."""
    fake.starts_in = None
    config = config_of()
    async with keeping(config) as (keeper, _), trio.open_nursery() as nursery:

        async def cancel() -> None:
            await trio.sleep(5)
            fake.end("1", "CANCELLED")

        nursery.start_soon(cancel)
        with pytest.raises(NoAllocation, match="has ended before it began: CANCELLED"):
            async with held(keeper, config):
                pass


async def test_an_idle_job_is_kept_for_a_while_and_then_given_back(
    fake: FakeSlurm, autojump_clock: MockClock
) -> None:
    """A model that starts within the idle time finds the job."""
    config = config_of(idle=100)
    async with keeping(config) as (keeper, _):
        async with held(keeper, config):
            pass
        await trio.sleep(90)
        async with held(keeper, config) as job:
            assert job.id == "1"
        await trio.sleep(90)
        assert fake.live == ["1"]
        await trio.sleep(30)
        assert fake.live == []


async def test_nobody_is_let_into_a_job_that_is_given_back(
    fake: FakeSlurm, autojump_clock: MockClock
) -> None:
    """This includes the moment in which llamadoze asks Slurm to cancel the job."""
    config = config_of(idle=10)
    async with keeping(config) as (keeper, _):
        async with held(keeper, config):
            pass
        while not fake.cancelled:
            claim = keeper.claim(holding_of(config))
            if claim.leaving:
                break
            await trio.sleep(0.001)
        async with held(keeper, config) as job:
            assert job.id == "2"


async def test_models_leave_when_the_next_job_runs(
    fake: FakeSlurm, autojump_clock: MockClock
) -> None:
    """Each model is told to leave, and the first job ends when its models have left."""
    fake.lasts = 1000
    config, told = config_of(), list[str]()
    async with keeping(config) as (keeper, clusters):
        clusters.keeper.on_leave = lambda model, _: told.append(model)
        async with held(keeper, config):
            await trio.sleep(950)
            assert len(fake.submitted) == 2
            assert set(told) == {"a"}
        async with held(keeper, config) as job:
            assert job.id == "2"
            await trio.sleep(30)
            assert fake.live == ["2"]


async def test_silence_changes_nothing_of_what_is_held(
    fake: FakeSlurm, autojump_clock: MockClock
) -> None:
    """A model that waits is told of the silence; when Slurm answers again, everything goes on."""
    config, told = config_of(), list[Queue]()
    async with keeping(config) as (keeper, _):
        async with held(keeper, config) as job:
            fake.silent = True
            await trio.sleep(300)
            assert keeper.claim(holding_of(config)).jobs == (fake.jobs["1"],)
            async with trio.open_nursery() as nursery:

                async def own() -> None:
                    async with held(keeper, config, "own", told):
                        pass

                nursery.start_soon(own)
                await trio.sleep(30)
                assert "does not answer" in told[-1].why
                fake.silent = False
        assert job.id == "1"
    assert fake.live == []


async def test_what_an_earlier_daemon_left_is_ended_before_anybody_starts(
    fake: FakeSlurm, autojump_clock: MockClock
) -> None:
    """These are jobs of allocations that are gone, and steps that no model has taken over."""
    config = config_of()
    ours = mark_of("us", holding_of(config))
    running = Job(id="7", state="RUNNING", node="n1", comment=ours, starts=BEGAN)
    other = Job(id="8", state="RUNNING", node="n2", comment="llamadoze.us.gone", starts=BEGAN)
    strangers = Job(id="9", state="RUNNING", node="n3", comment="llamadoze.them.x", starts=BEGAN)
    fake.jobs = {job.id: job for job in (running, other, strangers)}
    fake.steps = [
        Step(id="7.0", name="us.model.old", node="n1"),
        Step(id="7.1", name="us.model.kept", node="n1"),
        Step(id="9.0", name="them.model.x", node="n3"),
    ]
    async with keeping(config) as (keeper, clusters):
        clusters.expect(holding_of(config, "b"), "b", "7", "us.model.kept")
        async with held(keeper, config) as job:
            assert job.id == "7"
            assert {one for one, _ in fake.cancelled} == {"8", "7.0"}
            assert [step.id for step in fake.steps] == ["7.1", "9.0"]
    assert fake.live == ["9"]


async def test_what_outlives_the_daemon_is_not_given_back(
    fake: FakeSlurm, autojump_clock: MockClock
) -> None:
    """llamadoze keeps the job that a model lives on in, and gives every other job back."""
    config = config_of()
    async with (
        keeping(config) as (keeper, _),
        held(keeper, config) as job,
        held(keeper, config, "own"),
    ):
        keeper.spare(holding_of(config), job.id)
    assert fake.live == ["1"]


async def test_a_job_whose_number_never_came_is_given_back_too(
    fake: FakeSlurm, autojump_clock: MockClock
) -> None:
    """The daemon ends while it waits for the number of the job."""
    fake.starts_in = None
    config = config_of()
    async with keeping(config) as (keeper, _):
        with trio.move_on_after(0.025):
            async with held(keeper, config):
                pass
        claim = keeper.claim(holding_of(config))
        assert claim.jobs == ()
    assert fake.live == []


async def test_another_allocation_of_a_reload_is_another_job(
    fake: FakeSlurm, autojump_clock: MockClock
) -> None:
    """The first job ends when its models have left, even before its idle time has passed."""
    config, more = config_of(idle=1000), config_of(idle=1000, mem="2G")
    left = list[str]()
    async with keeping(config) as (keeper, clusters):
        clusters.keeper.on_leave = lambda model, _: left.append(model)
        async with held(keeper, config):
            clusters.change(more)
            await trio.sleep(10)
            assert set(left) == {"a"}
        async with held(keeper, more) as job:
            assert job.id == "2"
            await trio.sleep(10)
            assert fake.live == ["2"]


async def test_nothing_is_asked_while_nothing_is_held(
    fake: FakeSlurm, autojump_clock: MockClock
) -> None:
    """While a job is held, llamadoze asks only now and then, as Slurm has others to answer."""
    config = config_of(idle=0)
    async with keeping(config) as (keeper, _):
        async with held(keeper, config):
            await trio.sleep(10)
            before = fake.looks
            await trio.sleep(600)
            assert fake.looks - before <= 31
        await trio.sleep(60)
        before = fake.looks
        await trio.sleep(3600)
        assert fake.looks == before


async def test_how_a_job_ended_is_known_for_a_while(
    fake: FakeSlurm, autojump_clock: MockClock
) -> None:
    """The job's models can give the reason; a lost node, for example, is not their fault."""
    config = config_of()
    async with keeping(config) as (keeper, _):
        async with held(keeper, config) as job:
            fake.end(job.id, "NODE_FAIL")
            await keeper.looked()
            assert "NODE_FAIL" in keeper.end_of(job.id)
            assert keeper.has_displaced(job.id)
        fake.jobs["1"] = attrs.evolve(fake.jobs["1"], state="OUT_OF_MEMORY")
        await keeper.looked()
        assert not keeper.has_displaced(job.id)


async def test_clusters_of_one_slurm_leave_each_others_jobs_alone(
    fake: FakeSlurm, autojump_clock: MockClock
) -> None:
    """Two entries may differ only in the partition, and each sees the jobs of both."""
    config = parse(
        "clusters: {one: {partition: p}, two: {partition: q}}\n"
        "models: {a: {cmd: x, in: {cluster: one, gres: 'gpu:1'}}, "
        "b: {cmd: x, in: {cluster: two, gres: 'gpu:1'}}}"
    ).config
    async with keeping(config) as (keeper, _), held(keeper, config), held(keeper, config, "b"):
        await trio.sleep(200)
        assert fake.live == ["1", "2"]
        assert fake.cancelled == []


async def test_what_was_held_is_given_back_though_no_cluster_is_left(
    fake: FakeSlurm, autojump_clock: MockClock
) -> None:
    """An earlier daemon was killed, and then its models were removed from the file."""
    fake.jobs["7"] = Job(id="7", state="RUNNING", node="n1", comment="llamadoze.us.0123")
    async with open_clusters("us") as clusters:
        clusters.change(parse('models: {a: {cmd: "x ${PORT}"}}').config, may_be_left=True)
        await trio.sleep(5)
        assert fake.live == []


async def test_a_cancel_that_slurm_does_not_hear_is_asked_again(
    fake: FakeSlurm, autojump_clock: MockClock
) -> None:
    """llamadoze repeats the cancel even if it holds nothing, because no later request would."""
    fake.jobs["7"] = Job(id="7", state="RUNNING", node="n1", comment="llamadoze.us.0123")
    fake.deaf = 2
    async with open_clusters("us") as clusters:
        clusters.change(parse('models: {a: {cmd: "x ${PORT}"}}').config, may_be_left=True)
        await trio.sleep(30)
        assert fake.live == []


async def test_a_step_that_does_not_end_holds_up_its_own_job_alone(
    fake: FakeSlurm, autojump_clock: MockClock, log_lines: list[dict[str, str]]
) -> None:
    """llamadoze gives that job back and logs it once; other jobs are not held up."""
    config = config_of()
    mark = mark_of("us", holding_of(config))
    fake.jobs["1"] = Job(id="1", state="RUNNING", node="n1", comment=mark, starts=BEGAN)
    fake.steps.append(Step(id="1.0", name="us.x.1", node="n1"))
    fake.stuck.add("1.0")
    async with keeping(config) as (keeper, _):
        async with held(keeper, config, "own") as job:
            assert job.id == "2"
            assert trio.current_time() < 5
        told = list[Queue]()
        async with held(keeper, config, told=told) as job:
            assert job.id not in ("1", "2")
        assert "what an earlier llamadoze left" in " ".join(queue.why for queue in told)
    assert [line["event"] for line in log_lines].count(
        "Step 1.0 on n1 has no owner; llamadoze ends it"
    ) == 1


async def test_what_outlives_the_daemon_is_left_alone_until_its_end(
    fake: FakeSlurm, autojump_clock: MockClock
) -> None:
    """Other models may take long to stop, so the job is spared although no model is in it."""
    config = config_of(idle=0)
    holding = holding_of(config)
    async with keeping(config) as (keeper, _):
        async with held(keeper, config) as job:
            fake.steps.append(Step(id="1.0", name="us.a.1", node="n1"))
            keeper.spare(holding, job.id)
        await trio.sleep(200)
        assert fake.live == ["1"]
    assert fake.live == ["1"]
    assert [step.id for step in fake.steps] == ["1.0"]


async def test_a_reload_says_how_long_an_allocation_is_kept(
    fake: FakeSlurm, autojump_clock: MockClock
) -> None:
    """The new idle time also counts for a model that starts with its earlier settings."""
    before, after = config_of(idle=300), config_of(idle=5)
    async with keeping(before) as (keeper, clusters):
        clusters.change(after)
        async with held(keeper, before):
            pass
        await trio.sleep(15)
        assert fake.live == []


async def test_an_allocation_that_is_gone_from_the_file_is_forgotten(
    fake: FakeSlurm, autojump_clock: MockClock
) -> None:
    """llamadoze forgets it, so a daemon that is reloaded for years does not grow."""
    async with keeping(config_of()) as (keeper, clusters):
        for idle in range(5):
            clusters.change(config_of(idle=idle, mem=f"{idle + 1}G"))
            await trio.sleep(1)
        assert len(keeper.claims) == 2
