"""Plays the requests of some hours again, with other settings, in a separate process.

Owns the input of a play and the format of its result. A play uses a processor for seconds. No
request of the daemon may wait for that.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import trio

from configschema import Config, load
from proxy.history.finished import Finished
from proxy.history.spans import Row
from proxy.http.errors import BadRequest
from supervisor import Supervisor
from supervisor.playing.outcome import Arrival, Outcome
from supervisor.playing.played import Durations
from supervisor.playing.simulation import Simulation
from supervisor.room.space import Space
from supervisor.scheduling.outlook import rules_for
from supervisor.states.learned import Learned, learned_in
from supervisor.states.pins import KEPT
from supervisor.states.snapshot import Costs, Need

LONGEST = 120.0  # seconds, the limit on a play
MOST_SPANS = 20_000
USUAL = Durations()
_ONE = trio.CapacityLimiter(1)  # each play uses a whole processor


async def replayed(
    supervisor: Supervisor, files: Sequence[Path], requests: Sequence[Finished], asked: Row
) -> Row:
    """Play requests with other settings, and return the result.

    Args:
        supervisor: the owner of the models; what it has learned of them is used.
        files: of its configuration.
        requests: the past requests.
        asked: ``since`` and ``until`` in seconds since 1970, ``maxWait`` and ``minActive``.

    Raises:
        BadRequest: there is nothing to play, or the play fails or takes too long.
    """
    known = [
        one
        for one in requests
        if one.model in supervisor.servers and one.waited is not None and not one.error
    ]
    if not known:
        raise BadRequest("no served request of that time is known, so there is nothing to play")
    async with _ONE:
        return await _played(_told(supervisor, files, known, asked), known, asked)


async def _played(told: Row, known: Sequence[Finished], asked: Row) -> Row:
    data = json.dumps(told).encode()
    command = [sys.executable, "-P", "-m", "proxy.history.replay"]
    with trio.move_on_after(LONGEST):
        done = await trio.run_process(
            command, stdin=data, capture_stdout=True, capture_stderr=True, check=False
        )
        if done.returncode:
            last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise BadRequest(f"the play failed: {''.join(last)}", status=500)
        found: Row = json.loads(done.stdout)
        if not found:
            raise BadRequest("the configuration files no longer have any model of that time")
        return found | {"was": _as_it_was(known), "requests": len(known), "until": asked["until"]}
    raise BadRequest(f"the play took longer than {LONGEST:.0f} s; choose a shorter time")


def _told(
    supervisor: Supervisor, files: Sequence[Path], requests: Sequence[Finished], asked: Row
) -> Row:
    space = supervisor.room.space if supervisor.room.rules else None
    models = {
        name: {
            "learned": one.learned.as_data(),
            "gpus": one.known.count,
            "only": list(one.known.only),
            "can_sleep": one.can_sleep,
        }
        for name, one in supervisor.servers.items()
    }
    return {
        "files": [str(path) for path in files],
        "since": asked["since"],
        "maxWait": asked.get("maxWait"),
        "minActive": asked.get("minActive"),
        "models": models,
        "space": attrs.asdict(space) if space else None,
        "requests": [[one.at, one.model, one.seconds - (one.waited or 0.0)] for one in requests],
    }


def _as_it_was(requests: Sequence[Finished]) -> Row:
    return _waits(sorted(one.waited or 0.0 for one in requests))


# What runs in the separate process.


def play(data: Row) -> Row:
    """Play the given requests, and return the result."""
    config = load(*data["files"]).config
    given = {key: data[name] for key, name in _SETTINGS.items() if data.get(name) is not None}
    config = attrs.evolve(config, **given)
    rules, space = rules_for(config), data["space"]
    room = Space(**space) if rules.memory and space else rules.make_room
    durations = {
        name: _durations(config, name, data["models"].get(name, {}), rules.priorities)
        for name in config.models
    }
    arrivals = [
        Arrival(max(0.0, at - data["since"]), model, serve)
        for at, model, serve in data["requests"]
        if model in durations
    ]
    if not arrivals:
        return {}
    outcome = Simulation(durations, room, rules.patience).play(arrivals)
    return {
        "spans": _spans(outcome, data["since"]),
        "outcome": _waits(sorted(wait for some in outcome.waits.values() for wait in some))
        | {"swaps": outcome.activations},
    }


_SETTINGS = {"max_wait": "maxWait", "min_active": "minActive"}


def _durations(config: Config, name: str, told: Row, priorities: Mapping[str, int]) -> Durations:
    learned: Learned = learned_in(told.get("learned"))
    costs: Costs = learned.costs
    times = {
        step: usual if (known := getattr(costs, step)) is None else known
        for step in ("start", "stop", "sleep", "wake")
        for usual in (getattr(USUAL, step),)
    }
    footprint = attrs.evolve(learned.footprint.rested(), growth=0, is_short=False)
    need = Need(gpus=told.get("gpus", 1), only=tuple(told.get("only", ())), known=footprint)
    return Durations(
        **times,
        can_sleep=told.get("can_sleep", config.models[name].can_sleep),
        priority=priorities.get(name, 0),
        need=need,
        pin=KEPT if config.models[name].keep else None,
    )


def _spans(outcome: Outcome, since: float) -> list[Row]:
    return [
        {
            "model": span.model,
            "state": span.state.value,
            "begin": since + span.begin,
            "end": since + span.end,
        }
        for span in sorted(outcome.spans, key=lambda span: span.begin)[:MOST_SPANS]
    ]


def _waits(waits: Sequence[float]) -> Row:
    return {
        "p50": waits[len(waits) // 2],
        "p99": waits[int(len(waits) * 0.99)],
        "longest": waits[-1],
    }


def main() -> None:
    """Read a play from standard input, and write its result to standard output."""
    found: Any = play(json.load(sys.stdin))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
