"""A cluster's allocations in virtual time: how jobs begin, end and are lost, and at what cost."""

from __future__ import annotations

from math import inf
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configschema import parse
from supervisor.playing.allocations import ENGINE, PlayedAllocation, QueueWait, Terms
from supervisor.playing.clusterplay import ClusterPlay, Weather, cluster_play, seconds_of
from supervisor.playing.outcome import Arrival, Outcome
from supervisor.playing.played import Durations
from supervisor.playing.simulation import Simulation
from supervisor.room.space import Space
from supervisor.scheduling.decisions import Patience
from supervisor.scheduling.placement import one_at_a_time
from supervisor.states.footprint import Footprint
from supervisor.states.snapshot import Need
from supervisor.states.table import State

HOUR = 3600.0
TIMES = Durations(start=30, sleep=2, wake=1)


def allocation(terms: Terms, *names: str, durations: Durations = TIMES) -> PlayedAllocation:
    own = dict.fromkeys(names or ("a", "b"), durations)
    return PlayedAllocation(Simulation(own, one_at_a_time, Patience()), terms, Random("x"))


def played(one: PlayedAllocation, *arrivals: Arrival) -> Outcome:
    homes = dict.fromkeys(one.play.servers, "home")
    return ClusterPlay({"home": one}, homes).play(arrivals)


def test_the_first_request_waits_for_the_queue_and_the_start() -> None:
    """The second request waits for neither."""
    one = allocation(Terms(queue=QueueWait(60)))
    outcome = played(one, Arrival(0, "a", 1), Arrival(200, "a", 1))
    assert outcome.waits["a"] == pytest.approx([60 + ENGINE + 30, 0])
    assert one.jobs == 1


def test_a_swap_within_a_job_asks_the_queue_for_nothing() -> None:
    """The swap is a sleep, and a wake or a start."""
    one = allocation(Terms(queue=QueueWait(60)))
    outcome = played(
        one, Arrival(0, "a", 1), Arrival(200, "b", 1), Arrival(300, "a", 1), Arrival(400, "b", 1)
    )
    assert outcome.waits["a"][1] == pytest.approx(2 + 1)
    assert outcome.waits["b"] == pytest.approx([2 + 30, 2 + 1])
    assert len(one.queued) == 1
    assert one.most_asleep == 1


def test_a_job_that_nobody_uses_is_given_back() -> None:
    """The job ends after its models' own idle times, and then its own idle time, have passed."""
    one = allocation(Terms(idle=100, ttl={"a": 50}), "a")
    played(one, Arrival(0, "a", 10), Arrival(HOUR, "a", 10))
    assert one.jobs == 2
    assert one.held < 600


def test_a_sleeper_without_an_idle_time_keeps_its_job() -> None:
    """The daemon does the same: without a ttl, a sleeper keeps its job."""
    one = allocation(Terms(idle=100))
    played(one, Arrival(0, "a", 10), Arrival(HOUR, "a", 10))
    assert one.jobs == 1
    assert one.held > HOUR


def test_the_next_job_is_asked_for_before_the_first_ends() -> None:
    """After the move a request waits for a start, not for the queue, and no request is cut."""
    one = allocation(Terms(queue=QueueWait(300), time=2 * HOUR), "a")
    times = [Arrival(60.0 * minute, "a", 1) for minute in range(240)]
    outcome = played(one, *times)
    assert len(outcome.waits["a"]) == len(times)
    assert one.jobs >= 2
    assert one.cut == 0
    assert max(outcome.waits["a"][10:]) < 60


def test_a_node_that_fails_cuts_what_it_serves() -> None:
    """Requests that wait go on waiting, for another job."""
    terms = Terms(queue=QueueWait(10), failures=2000.0)  # every four hours
    one = allocation(terms)
    times = [Arrival(30.0 * n, "ab"[n % 2], 20) for n in range(2000)]
    outcome = played(one, *times)
    assert one.cut > 0
    assert one.jobs > 1
    assert sum(map(len, outcome.waits.values())) == len(times)


def test_a_long_request_is_cut_by_the_end_of_its_job() -> None:
    """The outcome counts such a request."""
    one = allocation(Terms(time=600), "a")
    played(one, Arrival(0, "a", HOUR))
    assert one.cut == 1


def test_sleepers_have_the_memory_of_the_allocation() -> None:
    """If sleepers need more, the least valuable is stopped, and starts anew later."""
    gib = 1 << 30
    need = Need(known=Footprint(gpus=(gib,), host=4 * gib, host_asleep=20 * gib, lives=1))
    names = ("a", "b", "c", "d")
    one = allocation(Terms(memory=64 * gib), *names, durations=Durations(start=30, need=need))
    played(one, *(Arrival(100.0 * n, names[n % 4], 1) for n in range(12)))
    assert one.most_asleep <= 3
    roomy = allocation(Terms(memory=256 * gib), *names, durations=Durations(start=30, need=need))
    played(roomy, *(Arrival(100.0 * n, names[n % 4], 1) for n in range(12)))
    assert roomy.most_asleep == 3


def test_the_waits_of_a_queue_are_as_they_were_told() -> None:
    """The median is as given, and so is the wait that nine in ten do not exceed."""
    queue, chance = QueueWait(60, 600), Random(1)
    drawn = sorted(queue.drawn(chance) for _ in range(10_000))
    assert drawn[5000] == pytest.approx(60, rel=0.1)
    assert drawn[9000] == pytest.approx(600, rel=0.1)
    assert QueueWait(5).drawn(chance) == 5


@settings(max_examples=60, deadline=None)
@given(
    times=st.lists(st.tuples(st.floats(0, 4000), st.sampled_from("abc")), max_size=40),
    time=st.sampled_from([inf, 300.0, 1000.0]),
    failures=st.sampled_from([0.0, 20_000.0]),
    idle=st.sampled_from([0.0, 60.0]),
    ttl=st.sampled_from([0.0, 30.0]),
)
def test_everybody_is_served_or_counted(
    times: list[tuple[float, str]], time: float, failures: float, idle: float, ttl: float
) -> None:
    """Whatever happens to the jobs, each request is served or counted as cut."""
    terms = Terms(
        queue=QueueWait(20, 90),
        time=time,
        failures=failures,
        idle=idle,
        ttl=dict.fromkeys("abc", ttl),
    )
    one = allocation(terms, "a", "b", "c")
    outcome = played(one, *(Arrival(at, name, 3) for at, name in times))
    assert sum(map(len, outcome.waits.values())) == len(times)
    assert all(wait >= 0 for some in outcome.waits.values() for wait in some)
    assert not one.is_busy
    assert not one.has_job


CONFIG = """
clusters: {hpc: {}}
allocations:
  one: {gres: 'gpu:1', mem: 64G, time: 1-00:00:00, idle: 60}
  two: {gres: 'gpu:2', ttl: 7200}
models:
  a: {cmd: x, in: one, sleepTtl: 30, ttl: 90, sleep: vllm}
  b: {cmd: x, in: one, sleep: vllm}
  c: {cmd: x, in: two, sleep: vllm}
  own: {cmd: x, in: {gres: gpu, time: 90}}
  here: {cmd: 'x ${PORT}'}
"""


def whole(room: Space | None = None) -> ClusterPlay:
    config = parse(CONFIG).config
    durations = dict.fromkeys(config.models, TIMES)
    weather = Weather(queues={"": QueueWait(60), "two": QueueWait(5)}, failures=1)
    return cluster_play(
        *(config, durations, room or one_at_a_time, Patience(), weather),
        lambda name, _: name,
    )


def test_a_configuration_says_which_allocations_there_are() -> None:
    """The file also gives their terms; this machine is an allocation that is always held."""
    play = whole()
    assert set(play.allocations) == {"one", "two", "(own)", ""}
    one = play.allocations["one"].terms
    assert (one.queue.median, one.time, one.idle) == (60, 86_400, 60)
    assert (one.ttl["a"], one.memory, one.failures) == (90, 64 << 30, 1)
    assert play.allocations["two"].terms.queue.median == 5
    assert play.allocations["two"].terms.ttl == {"c": 7200}
    assert play.allocations["(own)"].terms.time == 5400
    assert play.allocations[""].terms.is_held


def test_models_of_two_allocations_never_wait_for_each_other() -> None:
    """They also never wait for the models of this machine."""
    outcome = whole().play([Arrival(0, name, 50) for name in ("a", "c", "own", "here")])
    assert outcome.waits["here"] == [30]
    assert outcome.waits["c"] == pytest.approx([5 + ENGINE + 30])
    assert outcome.waits["a"] == outcome.waits["own"] == pytest.approx([60 + ENGINE + 30])


def test_a_model_whose_allocation_is_waited_for_is_queued() -> None:
    """Selectors choose by this state."""
    play = whole()
    seen = []

    def route(name: str, play: ClusterPlay) -> str:
        seen.append((play.state_of("a"), play.load_of("a")))
        return name

    play.route = route
    play.play([Arrival(0, "a", 50), Arrival(1, "b", 1), Arrival(95, "a", 1)])
    assert [state for state, _ in seen] == [State.STOPPED, State.QUEUED, State.READY]
    assert seen[2][1] == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("", 0), ("90", 5400), ("1:30", 90), ("2:00:00", 7200), ("1-0", 86_400)),
        *(("1-12", 129_600), ("1-12:30", 131_400), ("2-00:00:01", 172_801)),
    ],
)
def test_times_are_read_as_sbatch_has_them(text: str, seconds: float) -> None:
    """A single number means minutes."""
    assert seconds_of(text) == seconds
