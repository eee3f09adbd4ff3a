"""A sleep that is not proved is a failed sleep: the policy, on a virtual clock."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

import attrs
import pytest
import trio
from trio.testing import MockClock

from configschema import Call, Model, parse
from supervisor import BackingOff, ModelFailed, State, Supervisor, open_supervisor
from supervisor.processes.memory import Held
from supervisor.sleep.contact import Contact, Token
from supervisor.sleep.proof import GIB
from tests.fakes import FakeProbe, FakePrograms, FakeScales
from tests.supervisor.helpers import model, two
from tests.supervisor.sleep.test_sleep_and_wake import LogLines, events, state, use

B = model("serve b")
AWAKE, ASLEEP = Held(0, 40 * GIB), Held(0, 1 * GIB)


@attrs.define(eq=False)
class FakeServer:
    """Answers steps and questions; `wrong` has wrong answers by path, and the last one repeats."""

    wrong: dict[str, list[str | None]] = attrs.field(factory=dict)
    made: list[str] = attrs.field(factory=list)
    words: list[Token] = attrs.field(factory=lambda: [Token("four")])

    async def __call__(self, step: Call) -> str | None:
        await trio.lowlevel.checkpoint()
        path = "/" + step.url.split("/", 3)[3]
        self.made.append(path + (f" {step.holds}" if step.holds else ""))
        answers = self.wrong.get(path, [None])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer == "hangs":
            await trio.sleep_forever()
        return answer

    async def say(self, _: Model, route: str) -> Token:
        await trio.lowlevel.checkpoint()
        self.made.append(f"token {route}".strip())
        return self.words.pop(0) if len(self.words) > 1 else self.words[0]


def supervise(
    server: FakeServer, *held: Held, text: str = "", **keys: object
) -> AbstractAsyncContextManager[Supervisor]:
    """Open a supervisor of a model with a preset and one without."""
    a = model("serve a", **{"sleep": "vllm", **keys})
    contact = Contact(
        probe=FakeProbe(),
        call=server,
        one_token=server.say,
        weigh=FakeScales(list(held) or [Held()]),
    )
    return open_supervisor(parse(text + two(a, B)).config, contact)


async def test_a_preset_sleeps_and_wakes_by_its_steps_and_questions(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """Steps and questions come in order, and the pid stays the same."""
    server = FakeServer()
    async with supervise(server, AWAKE, ASLEEP, sleep="vllm-level2") as supervisor:
        first = await use(supervisor, "a")
        await use(supervisor, "b")
        assert state(supervisor, "a") is State.ASLEEP
        assert await use(supervisor, "a") == first
    assert server.made == [
        "token",
        "/sleep?level=2",
        "/is_sleeping is_sleeping",
        "/wake_up?tags=weights",
        "/collective_rpc",
        "/wake_up?tags=kv_cache",
        "/reset_prefix_cache",
        "/is_sleeping !is_sleeping",
        "token",
    ]
    assert "<a> Sleep freed 39.0 GiB, left 1.0 GiB of 40.0 GiB GPU memory" in events(log_lines)


async def test_a_question_is_asked_again_until_its_answer_is_right(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """A server may need a moment until its answer is right."""
    server = FakeServer({"/is_sleeping": ["answered {}", "answered {}", None]})
    async with supervise(server) as supervisor:
        await use(supervisor, "a")
        await use(supervisor, "b")
        assert state(supervisor, "a") is State.ASLEEP


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("answered 404", "asleep (GET /is_sleeping) timed out after 10s (answered 404)"),
        ("hangs", "asleep (GET /is_sleeping) timed out after 10s (no answer within 5s)"),
    ],
)
async def test_a_question_that_is_never_answered_right_is_a_failed_sleep(
    autojump_clock: MockClock,
    programs: FakePrograms,
    log_lines: LogLines,
    answer: str,
    words: str,
) -> None:
    """llamadoze stops the model, whatever the model said before."""
    async with supervise(FakeServer({"/is_sleeping": [answer]})) as supervisor:
        await use(supervisor, "a")
        began = trio.current_time()
        await use(supervisor, "b")
        assert trio.current_time() - began == pytest.approx(10, abs=0.3)
        assert state(supervisor, "a") is State.STOPPED
    assert f"<a> {words}, falling back to Stop()" in events(log_lines)


async def test_memory_that_is_not_freed_is_a_failed_sleep(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """The sleep fails after its time, during which llamadoze measures the memory again."""
    async with supervise(FakeServer(), AWAKE, Held(0, 30 * GIB)) as supervisor:
        await use(supervisor, "a")
        began = trio.current_time()
        await use(supervisor, "b")
        assert trio.current_time() - began == pytest.approx(10, abs=0.3)
        assert state(supervisor, "a") is State.STOPPED
    said = "the model still holds 30.0 GiB of 40.0 GiB GPU memory; a sleep must free 50 %"
    assert f"<a> {said} (verify.freed), falling back to Stop()" in events(log_lines)


async def test_memory_that_is_freed_a_little_later_is_good(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """A driver may need a moment to free memory."""
    held = [AWAKE, AWAKE, AWAKE, ASLEEP]
    async with supervise(FakeServer(), *held) as supervisor:
        await use(supervisor, "a")
        await use(supervisor, "b")
        assert state(supervisor, "a") is State.ASLEEP


async def test_memory_that_cannot_be_seen_any_more_is_not_taken_for_freed(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """The driver may have lost the GPU."""
    async with supervise(FakeServer(), AWAKE, Held(0, None)) as supervisor:
        await use(supervisor, "a")
        await use(supervisor, "b")
        assert state(supervisor, "a") is State.STOPPED
    assert any("cannot be measured any more, falling back" in line for line in events(log_lines))


async def test_scales_that_hang_are_a_failed_sleep(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """A driver that hangs has freed nothing, as far as llamadoze knows."""

    async def weigh(_: int, __: bool) -> Held:
        weighed.append(1)
        if len(weighed) > 1:
            await trio.sleep_forever()
        return AWAKE

    weighed: list[int] = []
    contact = Contact(probe=FakeProbe(), call=FakeServer(), weigh=weigh)
    config = parse(two(model("serve a", sleep="vllm"), B)).config
    async with open_supervisor(config, contact) as supervisor:
        await use(supervisor, "a")
        await use(supervisor, "b")
        assert state(supervisor, "a") is State.STOPPED


async def test_a_wake_that_is_not_proved_restarts_the_model(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """The new process serves the waiting request."""
    server = FakeServer({"/is_sleeping": [None, "answered {}"]})
    async with supervise(server, verify="{timeout: 2}") as supervisor:
        first = await use(supervisor, "a")
        await use(supervisor, "b")
        assert await use(supervisor, "a") != first
    said = "awake (GET /is_sleeping) timed out after 2s (answered {})"
    assert f"<a> {said}, restarting process" in events(log_lines)


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (Token("!!!!"), "after the wake the model said '!!!!', before the sleep 'four'"),
        (Token(failure="answered 500"), "after the wake no token came: answered 500"),
    ],
)
async def test_a_model_that_says_something_else_after_its_wake_is_restarted(
    autojump_clock: MockClock,
    programs: FakePrograms,
    log_lines: LogLines,
    after: Token,
    words: str,
) -> None:
    """A wake can corrupt the weights while the server answers 200 to everything."""
    server = FakeServer(words=[Token("four"), after, Token("four")])
    async with supervise(server, verify="{canary: true}") as supervisor:
        first = await use(supervisor, "a")
        await use(supervisor, "b")
        assert await use(supervisor, "a") != first
    assert f"<a> {words}, restarting process" in events(log_lines)


async def test_a_model_that_says_nothing_before_is_not_asked_after(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """The model is of another kind, for example for embeddings."""
    unsuited = Token(failure="/v1/completions answered 404", is_unsuited=True)
    server = FakeServer(words=[unsuited])
    async with supervise(server, verify="{canary: true}") as supervisor:
        first = await use(supervisor, "a")
        await use(supervisor, "b")
        assert await use(supervisor, "a") == first
    assert server.made.count("token") == 1
    warning = (
        "<a> The wakes of this process are not checked by a token: /v1/completions answered 404"
    )
    assert warning in events(log_lines)


SLEEPS_BADLY: dict[str, list[str | None]] = {"/sleep?level=1": ["answered 500"]}


async def fail_to_sleep(supervisor: Supervisor, times: int) -> None:
    for _ in range(times):
        await use(supervisor, "a")
        await use(supervisor, "b")


async def test_sleep_is_switched_off_after_failures_in_a_row(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """The log says so in one line; from then on the model is swapped by stop and start."""
    server = FakeServer(SLEEPS_BADLY)
    async with supervise(server) as supervisor:
        await fail_to_sleep(supervisor, 5)
        assert server.made.count("/sleep?level=1") == 3
        assert not supervisor.servers["a"].can_sleep
    off = [line for line in events(log_lines) if "Sleep is switched off" in line]
    assert off == [
        "<a> Sleep is switched off after 3 failures in a row (maxSleepFailures): llamadoze stops "
        "the model to make room. To let it sleep again, reload, or POST /api/models/sleep/a while "
        "it is loaded"
    ]


async def test_a_reload_lets_a_model_sleep_again(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The operator may have fixed the cause."""
    server = FakeServer(SLEEPS_BADLY)
    async with supervise(server) as supervisor:
        await fail_to_sleep(supervisor, 3)
        server.wrong = {}
        supervisor.reload(supervisor.config)
        await fail_to_sleep(supervisor, 1)
        assert state(supervisor, "a") is State.ASLEEP


async def test_an_operators_sleep_lets_a_model_sleep_again(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The answer says whether that worked."""
    server = FakeServer(SLEEPS_BADLY)
    async with supervise(server) as supervisor:
        await fail_to_sleep(supervisor, 3)
        await use(supervisor, "a")
        with pytest.raises(ModelFailed, match="answered 500; it was stopped and does not sleep"):
            await supervisor.sleep("a")
        await use(supervisor, "a")
        server.wrong = {}
        assert (await supervisor.sleep("a")).state is State.ASLEEP


async def test_wakes_that_fail_count_and_sleeps_that_work_do_not_make_up_for_them(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """If each wake fails, a sleep is worth nothing."""
    server = FakeServer({"/wake_up": ["answered 500"]})
    async with supervise(server) as supervisor:
        await fail_to_sleep(supervisor, 6)
        assert server.made.count("/sleep?level=1") == 3


async def test_an_idle_model_whose_sleep_is_switched_off_is_stopped(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The memory of an idle model is wanted back even if it cannot sleep."""
    async with supervise(FakeServer(SLEEPS_BADLY), sleepTtl=30) as supervisor:
        await fail_to_sleep(supervisor, 3)
        await use(supervisor, "a")
        await trio.sleep(31)
        assert state(supervisor, "a") is State.STOPPED


async def test_what_sleep_leaves_may_not_grow_without_end(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """The process is replaced while nobody uses it, and this is not a failure."""
    held = [Held(0, n * GIB) for n in (40, 1, 40, 2, 40, 3)]
    async with supervise(FakeServer(), *held) as supervisor:
        first = await use(supervisor, "a")
        await use(supervisor, "b")
        assert await use(supervisor, "a") == first
        await use(supervisor, "b")
        assert await use(supervisor, "a") == first
        await use(supervisor, "b")
        await trio.sleep(1)
        assert state(supervisor, "a") is State.STOPPED
        assert supervisor.servers["a"].sleeping.trust.failures == 0
    left = "<a> Sleep freed 38.0 GiB, left 2.0 GiB of 40.0 GiB GPU memory"
    assert f"{left}; 1.0 GiB more with each sleep" in events(log_lines)
    assert (
        "<a> Stopping process, as nobody uses it now: the GPU memory that sleep leaves has grown "
        "by 2.0 GiB, more than 1.0 GiB (verify.maxGrowth)" in events(log_lines)
    )


async def test_a_reading_of_memory_that_fails_once_is_taken_again(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """A driver may not answer while it works."""
    async with supervise(FakeServer(), AWAKE, Held(0, None), ASLEEP) as supervisor:
        await use(supervisor, "a")
        await use(supervisor, "b")
        assert state(supervisor, "a") is State.ASLEEP


async def test_a_router_that_has_loaded_nothing_has_nothing_to_free(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """A router that has loaded nothing sleeps already."""
    server, small = FakeServer(), Held(60 << 20)
    async with supervise(server, small, sleep="llama.cpp-router") as supervisor:
        await use(supervisor, "a")
        await use(supervisor, "b")
        assert state(supervisor, "a") is State.ASLEEP


async def test_a_canary_that_is_switched_on_while_the_model_sleeps_begins_with_the_wake(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """There is no earlier token to compare with, so nothing can be wrong."""
    server = FakeServer(words=[Token(failure="answered 404", is_unsuited=True)])
    async with supervise(server) as supervisor:
        first = await use(supervisor, "a")
        await use(supervisor, "b")
        text = two(model("serve a", sleep="vllm", verify="{canary: true}"), B)
        supervisor.reload(parse(text).config)
        assert await use(supervisor, "a") == first


@pytest.mark.parametrize("words", [2, 1], ids=["unwell before", "never asked before"])
async def test_a_model_that_could_say_something_and_does_not_after_its_wake_is_restarted(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines, words: int
) -> None:
    """The model is restarted even if there is no earlier token to compare with."""
    server = FakeServer(words=[Token(failure="answered 500")] * words + [Token("four")])
    canary = "{canary: true}" if words == 2 else "{}"
    async with supervise(server, verify=canary) as supervisor:
        first = await use(supervisor, "a")
        await use(supervisor, "b")
        text = two(model("serve a", sleep="vllm", verify="{canary: true}"), B)
        supervisor.reload(parse(text).config)
        assert await use(supervisor, "a") != first
    said = "<a> after the wake no token came: answered 500, restarting process"
    assert said in events(log_lines)
    assert ("<a> No token came before the sleep: answered 500" in events(log_lines)) is (words == 2)


async def test_optional_steps_together_leave_the_others_half_of_the_time(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """Two optional steps hang here, and the sleep still succeeds."""
    steps = "[{endpoint: /x, optional: true}, {endpoint: /x, optional: true}, {endpoint: /s}]"
    keys = {"sleepMode": "enable", "sleepEndpoints": steps, "wakeEndpoints": "[{endpoint: /w}]"}
    server = FakeServer({"/x": ["hangs"]})
    contact = Contact(probe=FakeProbe(), call=server, one_token=server.say)
    text = "cmdSleepTimeout: 4\n" + two(model("serve a", **keys), B)
    async with open_supervisor(parse(text).config, contact) as supervisor:
        await use(supervisor, "a")
        await use(supervisor, "b")
        assert state(supervisor, "a") is State.ASLEEP


async def test_a_question_with_a_time_of_its_own_may_take_it(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """Some servers answer only when they are done."""

    async def slowly(step: Call) -> str | None:
        await trio.sleep(6 if "slow" in step.url else 0)
        return None

    verify = "{asleep: [{endpoint: /slow, timeout: 20}]}"
    text = two(model("serve a", sleep="vllm", verify=verify), B)
    async with open_supervisor(
        parse(text).config, Contact(probe=FakeProbe(), call=slowly)
    ) as supervisor:
        await use(supervisor, "a")
        await use(supervisor, "b")
        assert state(supervisor, "a") is State.ASLEEP


async def test_host_memory_that_an_operator_asks_for_is_proved_whatever_a_router_says(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """The router's questions may prove too little."""
    full, verify = Held(200 << 20), "{hostMemory: true, timeout: 1}"
    async with supervise(FakeServer(), full, sleep="llama.cpp-router", verify=verify) as supervisor:
        await use(supervisor, "a")
        await use(supervisor, "b")
        assert state(supervisor, "a") is State.STOPPED


async def test_host_memory_that_cannot_be_measured_before_a_sleep_is_told(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """Without a measurement, host memory proves nothing."""
    async with supervise(FakeServer(), Held(), verify="{hostMemory: true}") as supervisor:
        await use(supervisor, "a")
        await use(supervisor, "b")
        assert state(supervisor, "a") is State.ASLEEP
    said = "<a> Host memory cannot be measured, so it does not prove this sleep"
    assert said in events(log_lines)


async def test_a_sleeper_that_is_killed_has_not_failed_to_sleep(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """The OOM killer kills the process that holds most; the log says where to look."""
    async with supervise(FakeServer()) as supervisor:
        for _ in range(3):
            await use(supervisor, "a")
            await use(supervisor, "b")
            await trio.sleep(100)
            programs.of("serve", "a").exit(-9)
            await trio.sleep(10)
        assert supervisor.servers["a"].sleeping.trust.failures == 0
    assert any("look for the OOM killer" in line for line in events(log_lines))


async def test_a_sleeper_that_dies_of_its_sleep_sleeps_no_more(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """A server may answer all questions right and die a moment later; no request waits for that."""
    async with supervise(FakeServer()) as supervisor:
        for _ in range(3):
            began = trio.current_time()
            await use(supervisor, "a")
            assert trio.current_time() - began < 1
            await use(supervisor, "b")
            programs.of("serve", "a").exit(1)
            await trio.sleep(1)
        assert not supervisor.servers["a"].can_sleep
        assert supervisor.servers["a"].backoff.failures == 0


async def test_an_optional_step_that_hangs_leaves_the_others_their_time(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """llamadoze gives the step up, and the wake succeeds."""
    server = FakeServer({"/reset_prefix_cache": ["hangs"]})
    async with supervise(server, sleep="vllm-level2") as supervisor:
        first = await use(supervisor, "a")
        await use(supervisor, "b")
        assert await use(supervisor, "a") == first
    said = "<a> reset cache (POST /reset_prefix_cache) timed out after 10s"
    assert f"{said}; llamadoze skips this optional step" in events(log_lines)


async def test_a_question_that_hangs_once_is_asked_again(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The server has accepted the question and not answered it."""
    async with supervise(FakeServer({"/is_sleeping": ["hangs", None]})) as supervisor:
        await use(supervisor, "a")
        await use(supervisor, "b")
        assert state(supervisor, "a") is State.ASLEEP


async def test_deaths_asleep_are_no_crashes_of_a_start(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """Each start was good, so no request has to wait."""
    async with supervise(FakeServer({}), text="maxSleepFailures: 0\n") as supervisor:
        for _ in range(5):
            await use(supervisor, "a")
            await use(supervisor, "b")
            programs.of("serve", "a").exit(-9)
            await trio.sleep(1)
            assert supervisor.servers["a"].backoff.failures == 0


async def test_all_steps_together_have_one_limit(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """The second of four steps hangs here, until the limit of all steps has passed."""
    server = FakeServer({"/collective_rpc": ["hangs"]})
    async with supervise(server, sleep="vllm-level2", cmdWakeTimeout=7) as supervisor:
        first = await use(supervisor, "a")
        await use(supervisor, "b")
        began = trio.current_time()
        assert await use(supervisor, "a") != first
        assert trio.current_time() - began == pytest.approx(7, abs=0.3)
    said = "reload weights (POST /collective_rpc) timed out after 7s, the limit of all steps"
    assert f"<a> {said}, restarting process" in events(log_lines)


async def test_a_step_that_is_optional_may_fail(
    autojump_clock: MockClock, programs: FakePrograms, log_lines: LogLines
) -> None:
    """The log says that llamadoze skips the step."""
    server = FakeServer({"/reset_prefix_cache": ["answered 404"]})
    async with supervise(server, sleep="vllm-level2") as supervisor:
        first = await use(supervisor, "a")
        await use(supervisor, "b")
        assert await use(supervisor, "a") == first
    said = "<a> reset cache (POST /reset_prefix_cache) answered 404"
    assert f"{said}; llamadoze skips this optional step" in events(log_lines)


async def test_a_model_that_fails_again_and_again_is_started_ever_later(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """A request waits for the next start if it is near; otherwise it is told when to retry."""
    text = two(model("fail 3"), B)
    contact = Contact(probe=FakeProbe({"a"}), call=FakeServer())
    async with open_supervisor(parse(text).config, contact) as supervisor:
        waits = []
        for _ in range(4):
            began = trio.current_time()
            with pytest.raises(ModelFailed):
                await use(supervisor, "a")
            waits.append(round(trio.current_time() - began))
        assert waits == [0, 1, 2, 4]
        with pytest.raises(BackingOff, match=r"failed 4 times in a row and starts again in"):
            await use(supervisor, "a")
        await use(supervisor, "b")
        await trio.sleep(8)
        with pytest.raises(ModelFailed):
            await use(supervisor, "a")


async def test_a_backoff_keeps_nobody_else_waiting(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """A model that serves does not make room for a model that cannot start yet."""
    text = two(model("fail 3"), B)
    contact = Contact(probe=FakeProbe({"a"}), call=FakeServer())
    async with open_supervisor(parse(text).config, contact) as supervisor:
        for _ in range(3):
            with pytest.raises(ModelFailed):
                await use(supervisor, "a")
        async with trio.open_nursery() as nursery:

            async def want_a() -> None:
                with pytest.raises(ModelFailed):
                    await use(supervisor, "a")

            nursery.start_soon(want_a)
            await trio.sleep(0.1)
            began = trio.current_time()
            await use(supervisor, "b")
            assert trio.current_time() == began
            assert state(supervisor, "b") is State.READY


async def test_an_unload_ends_a_backoff(autojump_clock: MockClock, programs: FakePrograms) -> None:
    """The operator who unloads the model knows of the failures, so the next start need not wait."""
    text = two(model("fail 3"), B)
    contact = Contact(probe=FakeProbe({"a"}), call=FakeServer())
    async with open_supervisor(parse(text).config, contact) as supervisor:
        for _ in range(5):
            with pytest.raises((ModelFailed, BackingOff)):
                await use(supervisor, "a")
        await supervisor.unload("a")
        began = trio.current_time()
        with pytest.raises(ModelFailed):
            await use(supervisor, "a")
        assert trio.current_time() == began
