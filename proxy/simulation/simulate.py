"""``llamadoze simulate``: how a configuration would serve a trace of requests.

Owns which rules are compared, and the report. The supervisor's simulation plays the trace, with the
daemon's own decisions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs

from configschema import Config
from configschema.keys.fields import Seconds
from configschema.rules.routing import Rules, check_routing
from proxy.lifecycle.startup import CannotRun, Malformed
from proxy.simulation.playedclusters import route_of, told_of, weather_for
from proxy.simulation.sizes import WITHOUT_END, Played, learned_by, needs_for, space_for
from proxy.simulation.timeline import draw
from proxy.simulation.traces import read_log, read_trace, seconds_in
from proxy.simulation.usualtimes import TIMES
from supervisor.playing.clusterplay import Weather, cluster_play
from supervisor.playing.outcome import Arrival, Outcome
from supervisor.playing.played import Durations
from supervisor.playing.simulation import Simulation
from supervisor.room.space import HOST, Space
from supervisor.scheduling.decisions import Patience
from supervisor.scheduling.outlook import rules_for
from supervisor.scheduling.placement import MakeRoom, one_at_a_time, placement_for
from supervisor.states.learned import NOTHING_LEARNED, Learned
from supervisor.states.pins import KEPT
from supervisor.states.snapshot import ANY_GPU

MOST_MODELS = 40  # models in the table, and in the picture
MOST_NAMES = 5
ONE_AT_A_TIME = "one at a time"


@attrs.frozen
class Report:
    """The result of a simulation.

    Attributes:
        head: the lines before the figures.
        outcomes: the outcome of each rule; the rule in effect is first.
    """

    head: list[str]
    outcomes: Mapping[str, Outcome]

    @property
    def used(self) -> str:
        """The rule in effect."""
        return next(iter(self.outcomes))

    def lines(self) -> list[str]:
        """Return the report for people, as lines of text."""
        marked = {
            f"{'*' if name == self.used else ' '} {name}": one
            for name, one in self.outcomes.items()
        }
        return [*self.head, *_totals(marked), "", *_per_model(self.outcomes[self.used])]

    def data(self) -> dict[str, Any]:
        """Return the report for programs. Times are in seconds."""
        rules = {name: _figures(one) for name, one in self.outcomes.items()}
        each = self.outcomes[self.used].waits
        models = {name: _waited(waits) for name, waits in sorted(each.items())}
        return {"rule": self.used, "notes": self.head, "rules": rules, "models": models}


def simulate(config: Config, options: Played) -> Report:
    """Play a trace.

    Raises:
        CannotRun: the trace or an argument cannot be used; the text tells where.
    """
    if options.max_wait is not None:
        config = attrs.evolve(config, max_wait=Seconds(options.max_wait))
    if options.min_active is not None:
        config = attrs.evolve(config, min_active=Seconds(options.min_active))
    space, learned = space_for(config, options), learned_by(config, options)
    durations = _durations(config, options, learned, space)
    trace, head = _trace(config, options)
    rules = dict(_rules(config, space))
    patience = rules_for(config).patience
    table = _Table(config, durations, patience, weather_for(config, options), trace)
    outcomes = {name: table.play(room) for name, room in rules.items()}
    head += table.said  # the lines of the rule in effect
    used, fair = next(iter(outcomes.items()))
    outcomes["first come, first served"] = table.play(rules[used], first_come=True)
    if options.picture:
        _write(Path(options.picture), draw(fair, MOST_MODELS))
    head += [f"maxWait {config.max_wait}, minActive {config.min_active}; in effect: {used}"]
    head += _unknown(durations, space) + _refused(outcomes)
    return Report(head, outcomes)


@attrs.define(eq=False)
class _Table:
    """All that a play needs except the rule, and the first play's lines about clusters."""

    config: Config
    durations: Mapping[str, Durations]
    patience: Patience
    weather: Weather
    trace: Sequence[Arrival]
    said: list[str] = attrs.field(factory=list, init=False)

    def play(self, room: MakeRoom | Space, *, first_come: bool = False) -> Outcome:
        """Play the trace by a rule."""
        if not any(model.holding for model in self.config.models.values()):
            return Simulation(self.durations, room, self.patience, first_come).play(self.trace)
        play = cluster_play(
            *(self.config, self.durations, room, self.patience, self.weather),
            route_of(self.config),
            first_come=first_come,
        )
        outcome = play.play(self.trace)
        self.said = self.said or told_of(play, outcome)
        return outcome


def _trace(config: Config, options: Played) -> tuple[list[Arrival], list[str]]:
    """Return the requests, and the report's lines about their source."""
    if options.log:
        arrivals, said = read_log(Path(options.log), config)
        return arrivals, [said]
    serve = _times(options.serve, "serve", config)
    return read_trace(Path(options.trace or ""), config, serve), []


def _durations(
    config: Config,
    options: Played,
    learned: Mapping[str, Learned],
    space: Space | None,
) -> dict[str, Durations]:
    times = {name: _times(getattr(options, name), name, config, learned) for name in TIMES}
    of_clusters = any(model.holding for model in config.models.values())
    asked = space or (Space(whole={HOST: WITHOUT_END}) if of_clusters else None)
    needs = needs_for(config, options, learned, asked) if asked else {}
    priorities = rules_for(config).priorities
    return {
        name: Durations(
            start=times["start"](name),
            stop=times["stop"](name),
            sleep=times["sleep"](name),
            wake=times["wake"](name),
            can_sleep=model.can_sleep,
            priority=priorities.get(name, 0),
            need=needs.get(name, ANY_GPU),
            pin=KEPT if model.keep else None,
        )
        for name, model in config.models.items()
    }


def _rules(config: Config, space: Space | None) -> Iterator[tuple[str, MakeRoom | Space]]:
    """Yield all rules that the file has settings for, the one in effect first."""
    router = config.routing.router
    matrix = config.matrix or router.settings.matrix
    groups = config.groups or router.settings.groups
    found: dict[str, MakeRoom | Space] = {}
    if space:
        found["memory"] = space
    if matrix is not None and _is_good(config, "matrix"):
        found["matrix"] = placement_for(Rules(matrix=matrix))
    if groups and _is_good(config, "group"):
        found["groups"] = placement_for(Rules(groups=groups))
    found[ONE_AT_A_TIME] = one_at_a_time
    if config.matrix is None and not config.groups and router.use == "memory":
        used = "memory"
    elif config.matrix is not None or (router.use == "matrix" and not config.groups):
        used = "matrix"
    else:
        used = "groups" if groups else ONE_AT_A_TIME
    yield used, found.pop(used)
    yield from found.items()


def _is_good(config: Config, use: Literal["matrix", "group"]) -> bool:
    """Whether a rule could be in effect. `check` does not report on any other rules."""
    if config.matrix is not None or config.groups:
        return True
    routing = config.routing
    changed = attrs.evolve(routing, router=attrs.evolve(routing.router, use=use))
    return not any(check_routing(attrs.evolve(config, routing=changed)))


def _unknown(durations: Mapping[str, Durations], space: Space | None) -> list[str]:
    """Report which models get whole devices because their size is unknown."""
    if space is None:
        return []
    names = [
        name
        for name, of in durations.items()
        if not of.need.known.is_known or (not space.gpus and of.need.known.host is None)
    ]
    if not names:
        return []
    shown = ", ".join(f"'{name}'" for name in names[:MOST_NAMES])
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return [
        f"The size of {shown}{more} is unknown: at every start, no other model may run on the same "
        "devices. To give the size of a model, use --memory MODEL=GIB"
    ]


def _refused(outcomes: Mapping[str, Outcome]) -> list[str]:
    return [
        f"{name}: {one.refused} requests were refused because models with keep take all the room"
        for name, one in outcomes.items()
        if one.refused
    ]


def _times(
    given: Iterable[str], name: str, config: Config, learned: Mapping[str, Learned] | None = None
) -> Callable[[str], float]:
    """Return the seconds of a step for each model: from the arguments, or learned, or default."""
    everyones: float | None = None
    own: dict[str, float] = {}
    for text in given:
        who, equals, value = text.rpartition("=")
        model = config.find(who)
        try:
            seconds = seconds_in(value)
        except ValueError:
            raise Malformed(f"--{name} {text}: expected SECONDS or MODEL=SECONDS") from None
        if not equals:
            everyones = seconds
        elif model is None:
            raise CannotRun(f"--{name} {text}: no model is called '{who}'")
        else:
            own[model.id] = seconds

    def seconds_of(model_id: str) -> float:
        costs = (learned or {}).get(model_id, NOTHING_LEARNED).costs
        known = own.get(model_id, everyones), getattr(costs, name, None), TIMES[name][0]
        return next(value for value in known if value is not None)

    return seconds_of


def _totals(outcomes: Mapping[str, Outcome]) -> list[str]:
    width = max(map(len, outcomes))
    head = (
        f"{'':<{width}}  {'requests':>8} {'swaps':>7} {'wait p50':>9} {'p99':>9} {'max':>9}"
        f" {'serving':>8} {'swapping':>8}"
    )
    lines = [head]
    for name, outcome in outcomes.items():
        waits = sorted(wait for some in outcome.waits.values() for wait in some)
        end = outcome.end or 1
        lines.append(
            f"{name:<{width}}  {len(waits):>8} {outcome.activations:>7} {_spread(waits)}"
            f" {outcome.serving / end:>8.1%} {outcome.changing / end:>8.1%}"
        )
    return lines


def _per_model(outcome: Outcome) -> list[str]:
    most_asked = sorted(outcome.waits, key=lambda name: (-len(outcome.waits[name]), name))
    shown = most_asked[:MOST_MODELS]
    width = max(map(len, [*shown, "model"]))
    lines = [f"{'model':<{width}}  {'requests':>8} {'wait p50':>9} {'p99':>9} {'max':>9}"]
    for name in shown:
        waits = sorted(outcome.waits[name])
        lines.append(f"{name:<{width}}  {len(waits):>8} {_spread(waits)}")
    if left := len(most_asked) - len(shown):
        lines.append(f"and {left} more models with fewer requests")
    return lines


def _figures(outcome: Outcome) -> dict[str, Any]:
    waits = [wait for some in outcome.waits.values() for wait in some]
    end = outcome.end or 1
    return {
        **_waited(waits),
        "refused": outcome.refused,
        "swaps": outcome.activations,
        "serving": round(outcome.serving / end, 4),
        "swapping": round(outcome.changing / end, 4),
    }


def _waited(waits: Sequence[float]) -> dict[str, float]:
    median, most, longest = (round(wait, 3) for wait in _places(sorted(waits)))
    return {"requests": len(waits), "p50": median, "p99": most, "max": longest}


def _places(waits: Sequence[float]) -> list[float]:
    """Return the median, the 99th percentile and the longest of sorted waits."""
    return [waits[place] for place in (len(waits) // 2, int(len(waits) * 0.99), len(waits) - 1)]


def _spread(waits: Sequence[float]) -> str:
    return " ".join(f"{wait:>8.1f}s" for wait in _places(waits))


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise CannotRun(f"cannot write {path}: {error.strerror}") from error
