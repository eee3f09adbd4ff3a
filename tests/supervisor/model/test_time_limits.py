"""How long a start, a sleep and a wake may take, including everything that belongs to them."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from supervisor import ModelFailed, State, Supervisor
from supervisor.states.backoff import NO_BACKOFF
from tests.fakes import FakeCalls, FakeProbe, FakePrograms
from tests.supervisor.helpers import model, supervise, two
from tests.supervisor.sleep.test_sleep_and_wake import LogLines, events, state, use

B = model("serve b")
ADDRESS = "http://model.test:9"


async def seconds_of_a_swap(supervisor: Supervisor, name: str = "b") -> float:
    began = trio.current_time()
    await use(supervisor, name)
    return trio.current_time() - began


async def cut(supervisor: Supervisor) -> None:
    """Use a model, and disconnect before its answer has ended."""
    with pytest.raises(ConnectionError):
        async with supervisor.lease("a"):
            raise ConnectionError("the client has left")


@pytest.mark.parametrize("keys", [{}, {"verify": "{timeout: 60}"}])
async def test_a_sleep_takes_no_longer_than_it_may_with_all_its_questions(
    autojump_clock: MockClock, programs: FakePrograms, keys: dict[str, object]
) -> None:
    """The limit of the sleep counts, however much time the questions may take by themselves."""
    a = model("serve a", sleep="vllm", cmdSleepTimeout=5, **keys)
    async with supervise(two(a, B), calls=FakeCalls("is_sleeping")) as supervisor:
        await use(supervisor, "a")
        assert await seconds_of_a_swap(supervisor) == pytest.approx(5, abs=0.3)
        assert state(supervisor, "a") is State.STOPPED


async def test_the_check_after_a_wake_takes_no_longer_than_the_wake_may(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """The time of the wake's steps counts, too; at the limit, llamadoze replaces the process."""
    probe = FakeProbe()
    a = model("serve a", cmdSleep="sleep 1", cmdWake="sleep 4", cmdWakeTimeout=10)
    async with supervise(two(a, B), probe) as supervisor, trio.open_nursery() as nursery:
        first = await use(supervisor, "a")
        await use(supervisor, "b")
        probe.unready.add("a")

        async def heal() -> None:
            await trio.sleep(12)
            probe.unready.clear()

        nursery.start_soon(heal)
        assert await seconds_of_a_swap(supervisor, "a") == pytest.approx(12, abs=0.5)
        assert supervisor.servers["a"].snapshot().pid != first
    words = "<a> after cmdWake the model was not ready within 10s: /health answered 503"
    failed = [line for line in log_lines if str(line["event"]).startswith(words)]
    assert [line["duration_s"] for line in failed] == [pytest.approx(10, abs=0.3)]
    assert f"{words}, restarting process" in events(log_lines)


@pytest.mark.parametrize(("was_cut", "takes"), [(False, 1.0), (True, 1.5)])
async def test_a_server_that_cannot_be_asked_has_a_moment_after_a_cut_request(
    autojump_clock: MockClock, programs: FakePrograms, was_cut: bool, takes: float
) -> None:
    """The server may still work on the cut request when it is told to sleep."""
    a = model("serve a", cmdSleep="sleep 1", cmdWake="sleep 1")
    async with supervise(two(a, B)) as supervisor:
        await use(supervisor, "a")
        if was_cut:
            await cut(supervisor)
        began = trio.current_time()
        await supervisor.sleep("a")
        assert trio.current_time() - began == pytest.approx(takes, abs=0.05)


async def test_a_cut_long_ago_costs_no_time(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The moment counts from the cut, and the next sleep forgets the cut."""
    a = model("serve a", cmdSleep="sleep 1", cmdWake="sleep 1")
    async with supervise(two(a, B)) as supervisor:
        await cut(supervisor)
        await trio.sleep(0.4)
        began = trio.current_time()
        await supervisor.sleep("a")
        assert trio.current_time() - began == pytest.approx(1.1, abs=0.05)
        assert supervisor.servers["a"].usage.cut_at is None


@pytest.mark.parametrize("was_cut", [False, True])
async def test_vllm_is_asked_whether_it_is_idle_only_after_a_cut(
    autojump_clock: MockClock, programs: FakePrograms, was_cut: bool
) -> None:
    """Otherwise vLLM has nothing to do, because it answers a request only when that is done."""
    calls = FakeCalls()
    async with supervise(two(model("serve a", sleep="vllm"), B), calls=calls) as supervisor:
        await use(supervisor, "a")
        if was_cut:
            await cut(supervisor)
        await supervisor.sleep("a")
    asked = f"GET {ADDRESS}/metrics" in calls.made
    assert asked == was_cut
    if asked:
        sleep = f"POST {ADDRESS}/sleep?level=1"
        assert calls.made.index(f"GET {ADDRESS}/metrics") < calls.made.index(sleep)


async def test_a_server_that_does_not_get_idle_is_not_put_to_sleep(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """A server that is not idle within the time of a sleep is stopped; a sleep would crash it."""
    calls = FakeCalls("metrics")
    a = model("serve a", sleep="vllm", cmdSleepTimeout=20)
    async with supervise(two(a, B), calls=calls) as supervisor:
        await cut(supervisor)
        assert await seconds_of_a_swap(supervisor) == pytest.approx(20, abs=0.5)
        assert state(supervisor, "a") is State.STOPPED
    assert f"POST {ADDRESS}/sleep?level=1" not in calls.made


async def test_a_start_that_takes_long_is_told_now_and_then(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """The log says so every 15 seconds, with the server's last output, until it is ready."""
    probe = FakeProbe({"a"})
    text = "healthCheckTimeout: 300\n" + two(model("serve a"), B)
    async with supervise(text, probe) as supervisor, trio.open_nursery() as nursery:

        async def load() -> None:
            await trio.sleep(20)
            supervisor.servers["a"].output.write(b"Loading shard 2 of 9\n")
            await trio.sleep(20)
            probe.unready.clear()

        nursery.start_soon(load)
        await use(supervisor, "a")
        await trio.sleep(100)
    assert [line for line in events(log_lines) if "Still loading" in line] == [
        "<a> Still loading, 15 of 300s",
        "<a> Still loading, 30 of 300s; last output: Loading shard 2 of 9",
    ]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, "if it needs longer, raise readyTimeout, healthCheckTimeout"),
        ({"readyTimeout": 20}, "if it needs longer, raise readyTimeout"),
    ],
)
async def test_a_start_that_took_too_long_says_which_key_gives_it_more_time(
    autojump_clock: MockClock, programs: FakePrograms, keys: dict[str, object], words: str
) -> None:
    """The error names the model's own key, if the model has it."""
    text = "healthCheckTimeout: 20\n" + two(model("serve a", **keys), B)
    async with supervise(text, FakeProbe({"a"})) as supervisor:
        with pytest.raises(ModelFailed) as caught:
            await use(supervisor, "a")
    reason = caught.value.reason
    assert reason.startswith("not ready within 20s: /health answered 503")
    assert reason.endswith(words)


@pytest.mark.parametrize("moment", ["asleep", "waking", "falling asleep"])
async def test_a_death_around_a_sleep_holds_up_no_start(
    autojump_clock: MockClock, programs: FakePrograms, moment: str
) -> None:
    """The death says nothing of the next start, so a request gets a new process at once."""
    a = model("serve a", cmdSleep="sleep 5", cmdWake="sleep 5")
    async with supervise(two(a, B)) as supervisor, trio.open_nursery() as nursery:
        first = await use(supervisor, "a")
        nursery.start_soon(use, supervisor, "b")
        await trio.sleep(2 if moment == "falling asleep" else 10)
        if moment == "waking":
            nursery.start_soon(use, supervisor, "a")
            await trio.sleep(2)
        programs.of("serve", "a").exit(-9)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        assert await use(supervisor, "a") != first
        assert trio.current_time() - began < 0.5
        assert supervisor.servers["a"].backoff == NO_BACKOFF
