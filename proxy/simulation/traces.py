"""Traces of requests: from lines of CSV, or from the daemon's own log.

Owns both forms, and what is said of lines that are none. What is made of a trace is `simulate`'s.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs

from configschema import Config
from proxy.lifecycle.startup import CannotRun
from supervisor.playing.outcome import Arrival

MOST_NAMES = 5  # of models that are gone, in the report


def seconds_in(text: str) -> float:
    """Return the seconds that a text says.

    Raises:
        ValueError: it says none.
    """
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError(f"expected seconds, found {text}")
    return value


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
    if model is None and not (config.clusters and name in config.selectors):
        raise ValueError(f"no model is called '{name}'")
    meant = model.id if model else name
    seconds = seconds_in(more[0]) if more and more[0] else serve(meant)
    return Arrival(seconds_in(at), meant, seconds)


def read_log(path: Path, config: Config) -> tuple[list[Arrival], str]:
    """Read the requests in a log, and say what was left out of it.

    Raises:
        CannotRun: the file cannot be read, or has no request.
    """
    reading = _LogReading(config)
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                reading.take(line)
    except OSError as error:
        raise CannotRun(f"cannot read {path}: {error.strerror}") from error
    if not reading.found:
        raise CannotRun(
            f"{path} holds no request of a model of this file: expected llamadoze's log as JSON, "
            f"which --log-format json writes; {reading.left_out}"
        )
    first = min(one.at for one in reading.found)
    arrivals = [attrs.evolve(one, at=one.at - first) for one in reading.found]
    return arrivals, f"{path}: {len(arrivals)} requests; {reading.left_out}"


@attrs.define(eq=False)
class _LogReading:
    """What was found in a log so far.

    Attributes:
        config: says which models there are.
        found: the requests, at the seconds since 1970 at which they came.
    """

    config: Config
    found: list[Arrival] = attrs.field(factory=list, init=False)
    _ready: dict[str, float] = attrs.field(factory=dict, init=False)
    _gone: Counter[str] = attrs.field(factory=Counter, init=False)
    _counts: Counter[str] = attrs.field(factory=Counter, init=False)

    @property
    def left_out(self) -> str:
        """What was left out, in words."""
        counts = self._counts
        parts = [
            f"{counts['other']} other lines",
            f"{counts['broken']} broken ones",
            f"{counts['failed']} requests that were refused or failed",
        ]
        if self._gone:
            names = [f"'{name}'" for name, _ in self._gone.most_common(MOST_NAMES)]
            more = "" if len(self._gone) <= MOST_NAMES else " and others"
            count = sum(self._gone.values())
            parts.append(
                f"{count} requests of models that the file lacks: {', '.join(names)}{more}"
            )
        return f"left out: {', '.join(parts)}"

    def take(self, line: str) -> None:
        """Look at one more line."""
        if not line.strip():
            return
        try:
            facts = json.loads(line)
            ended = datetime.fromisoformat(facts["timestamp"]).timestamp()
            took = float(facts.get("duration_s") or 0)
            said = facts.get("queue_s", facts.get("waited_s"))  # until 0.1 it was called so
            waited = None if said is None else float(said)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            self._counts["broken"] += 1
            return
        if "status" in facts and "request_id" in facts and facts.get("model"):
            self._take_request(facts, ended, took, waited)
            return
        self._counts["other"] += 1
        if facts.get("state") == "ready" and "duration_s" in facts:
            self._ready[str(facts.get("model"))] = ended

    def _take_request(
        self, facts: Mapping[str, Any], ended: float, took: float, waited: float | None
    ) -> None:
        name = str(facts["model"])
        model = self.config.find(name)
        if model is None:
            self._gone[name] += 1
        elif "reason" in facts or took < 0:
            self._counts["failed"] += 1
        else:
            came = ended - took
            begun = self._ready.get(name, came) if waited is None else came + waited
            serve = max(0.0, ended - max(came, begun))
            self.found.append(Arrival(came, model.id, serve))
