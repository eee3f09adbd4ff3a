"""``llamadoze simulate``: what a configuration would make of a trace of requests.

Owns the trace's form and the report. The play itself is the supervisor's simulation, with the
daemon's own decisions.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import attrs

from configschema import Config
from proxy.command.arguments import TIMES
from proxy.command.timeline import draw
from proxy.lifecycle.startup import CannotRun
from supervisor.scheduling.scheduler import rules_for
from supervisor.scheduling.simulation import Arrival, Durations, Outcome, Simulation

MOST_MODELS = 40  # in the table; the picture shows as many


def simulate(config: Config, options: argparse.Namespace) -> list[str]:
    """Play a trace and return the lines of the report.

    Raises:
        CannotRun: the trace or an argument cannot be used, with its place.
    """
    if options.max_wait is not None:
        config = attrs.evolve(config, max_wait=options.max_wait)
    if options.min_active is not None:
        config = attrs.evolve(config, min_active=options.min_active)
    times = {name: _times(getattr(options, name), name, config) for name in TIMES}
    trace = read_trace(Path(options.trace), config, times["serve"])
    rules = rules_for(config)
    durations = {
        name: Durations(
            start=times["start"](name),
            stop=times["stop"](name),
            sleep=times["sleep"](name),
            wake=times["wake"](name),
            can_sleep=model.can_sleep,
            priority=rules.priorities.get(name, 0),
        )
        for name, model in config.models.items()
    }
    fair, strict = (
        Simulation(durations, rules.make_room, rules.patience, first_come).play(trace)
        for first_come in (False, True)
    )
    if options.picture:
        _write(Path(options.picture), draw(fair, MOST_MODELS))
    most = f"maxWait {config.max_wait}, minActive {config.min_active}"
    return [*_totals({most: fair, "first come, first served": strict}), "", *_per_model(fair)]


def read_trace(path: Path, config: Config, serve: Callable[[str], float]) -> list[Arrival]:
    """Read a trace: lines of seconds, model and, if it is known, the seconds of its service.

    Raises:
        CannotRun: the file cannot be read, or a line is none of these.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(enumerate(csv.reader(file), start=1))
    except OSError as error:
        raise CannotRun(f"cannot read {path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise CannotRun(f"cannot read {path}: {error}") from error
    arrivals = []
    for number, row in rows:
        if not row or row[0].lstrip().startswith("#") or (number == 1 and _is_head(row)):
            continue  # a blank line, a comment, the names of the columns
        try:
            arrivals.append(_arrival(row, config, serve))
        except ValueError as error:
            raise CannotRun(f"{path}:{number}: {error}") from None
    if not arrivals:
        raise CannotRun(f"{path} holds no request: expected lines of seconds,model")
    return arrivals


def _is_head(row: Sequence[str]) -> bool:
    """Whether a first line has the names of the columns: not one of them begins with a digit."""
    return not any(cell.strip()[:1].isdigit() for cell in row)


def _arrival(row: Sequence[str], config: Config, serve: Callable[[str], float]) -> Arrival:
    if len(row) not in (2, 3):
        raise ValueError("expected seconds,model or seconds,model,serve")
    at, name, *more = (cell.strip() for cell in row)
    model = config.find(name)
    if model is None:
        raise ValueError(f"no model is called '{name}'")
    seconds = _seconds(more[0]) if more and more[0] else serve(model.id)
    return Arrival(_seconds(at), model.id, seconds)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError(f"expected seconds, found {text}")
    return value


def _times(given: Iterable[str], name: str, config: Config) -> Callable[[str], float]:
    """Return how long something takes for each model, as the arguments say."""
    everyones, own = TIMES[name][0], dict[str, float]()
    for text in given:
        who, equals, value = text.rpartition("=")
        model = config.find(who)
        try:
            seconds = _seconds(value)
        except ValueError:
            raise CannotRun(f"--{name} {text}: expected SECONDS or MODEL=SECONDS") from None
        if not equals:
            everyones = seconds
        elif model is None:
            raise CannotRun(f"--{name} {text}: no model is called '{who}'")
        else:
            own[model.id] = seconds
    return lambda model_id: own.get(model_id, everyones)


def _totals(outcomes: dict[str, Outcome]) -> list[str]:
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


def _spread(waits: Sequence[float]) -> str:
    """Return the median, the 99th percentile and the longest of some sorted waits, in seconds."""
    places = (len(waits) // 2, int(len(waits) * 0.99), len(waits) - 1)
    return " ".join(f"{waits[place]:>8.1f}s" for place in places)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise CannotRun(f"cannot write {path}: {error.strerror}") from error
