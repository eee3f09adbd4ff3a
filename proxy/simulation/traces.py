"""Traces of requests: from lines of CSV, or from the daemon's own log.

Owns both forms, and the report of lines that do not fit. `simulate` plays the trace.
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

MOST_NAMES = 5  # models in the report that are no longer in the file


def seconds_in(text: str) -> float:
    """Return the seconds in a text.

    Raises:
        ValueError: the text is not a number of seconds.
    """
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError(f"expected seconds, found {text}")
    return value


def read_trace(path: Path, config: Config, serve: Callable[[str], float]) -> list[Arrival]:
    """Read a trace: lines of seconds, model and, if known, the seconds to serve the request.

    Raises:
        CannotRun: the file cannot be read, or a line does not have this form.
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
            continue  # a blank line, a comment, or the names of the columns
        try:
            arrivals.append(_arrival(row, config, serve))
        except ValueError as error:
            raise CannotRun(f"{path}:{number}: {error}") from None
    if not arrivals:
        raise CannotRun(f"{path} contains no request: expected lines of seconds,model")
    return arrivals


def _is_head(row: Sequence[str]) -> bool:
    """Whether a first line has the names of the columns: no cell begins with a digit."""
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
    """Read the requests in a log, and report which lines were left out.

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
            f"{path} contains no request for a model of the configuration: expected llamadoze's "
            f"log as JSON, which --log-format json writes; {reading.left_out}"
        )
    first = min(one.at for one in reading.found)
    arrivals = [attrs.evolve(one, at=one.at - first) for one in reading.found]
    return arrivals, f"{path}: {len(arrivals)} requests; {reading.left_out}"


@attrs.define(eq=False)
class _LogReading:
    """The requests found in a log so far.

    Attributes:
        config: has the models.
        found: the requests, with the times at which they came in seconds since 1970.
    """

    config: Config
    found: list[Arrival] = attrs.field(factory=list, init=False)
    _ready: dict[str, float] = attrs.field(factory=dict, init=False)
    _gone: Counter[str] = attrs.field(factory=Counter, init=False)
    _counts: Counter[str] = attrs.field(factory=Counter, init=False)

    @property
    def left_out(self) -> str:
        """The lines that were left out, in words."""
        counts = self._counts
        parts = [
            f"{counts['other']} other lines",
            f"{counts['broken']} broken lines",
            f"{counts['failed']} requests that were refused or failed",
        ]
        if self._gone:
            names = [f"'{name}'" for name, _ in self._gone.most_common(MOST_NAMES)]
            more = "" if len(self._gone) <= MOST_NAMES else " and others"
            count = sum(self._gone.values())
            parts.append(
                f"{count} requests for models not in the configuration: {', '.join(names)}{more}"
            )
        return f"left out: {', '.join(parts)}"

    def take(self, line: str) -> None:
        """Read one more line."""
        if not line.strip():
            return
        try:
            facts = json.loads(line)
            ended = datetime.fromisoformat(facts["timestamp"]).timestamp()
            took = float(facts.get("duration_s") or 0)
            said = facts.get("queue_s", facts.get("waited_s"))  # the name until version 0.1
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
