"""Clusters in a simulation: their options, and their lines in the report.

Owns how a request goes to one of several models, by the selectors of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

from configschema import Config
from proxy.lifecycle.startup import CannotRun, Malformed
from proxy.naming.directory import Directory, Local
from proxy.naming.selectors import choose
from proxy.simulation.sizes import Played
from proxy.simulation.traces import seconds_in
from supervisor.playing.allocations import QueueWait
from supervisor.playing.clusterplay import ClusterPlay, Weather
from supervisor.playing.outcome import Outcome

GIB = 1 << 30


def weather_for(config: Config, options: Played) -> Weather:
    """Return the queue waits and node failures of the clusters.

    Raises:
        CannotRun: an option is not valid.
    """
    names = {model.allocation for model in config.models.values() if model.holding}
    queues = {}
    for text in options.queue_wait:
        name, _, value = text.rpartition("=")
        own = name if name in names else f"({name})" if name else ""
        if own and own not in names:
            raise CannotRun(f"--queue-wait {text}: there is no allocation '{name}'")
        queues[own] = _queue(value, text)
    gpu = int(float(options.gpu[0]) * GIB) if options.gpu else 0
    return Weather(queues=queues, failures=options.node_failures, gpu=gpu, seed=options.seed)


def _queue(value: str, whole: str) -> QueueWait:
    median, colon, most = value.partition(":")
    try:
        return QueueWait(seconds_in(median), seconds_in(most) if colon else 0.0)
    except ValueError:
        form = "[ALLOCATION=]SECONDS, or [ALLOCATION=]SECONDS:SECONDS"
        raise Malformed(f"--queue-wait {whole}: expected {form}") from None


def route_of(config: Config) -> Callable[[str, ClusterPlay], str]:
    """Return a function that chooses one of the models that a request's name stands for."""
    directory, turns = Directory(config), count(1)
    selectors = config.selectors
    targets = {
        name: [one for target in selector.targets if (one := directory.find(target))]
        for name, selector in selectors.items()
    }

    def route(name: str, play: ClusterPlay) -> str:
        if name in config.models:
            return name
        local = [one for one in targets[name] if isinstance(one, Local)]
        load = {one.id: play.load_of(one.model.id) for one in local}
        found = choose(selectors[name], local, play.state_of, load, next(turns)) or local[0]
        return found.id

    return route


def told_of(play: ClusterPlay, outcome: Outcome) -> list[str]:
    """Return the report's lines about the allocations."""
    each = [one for one in play.allocations.values() if not one.terms.is_held]
    queued = sorted(wait for one in each for wait in one.queued)
    held, end = sum(one.held for one in each), outcome.end or 1.0
    lines = [
        f"{len(each)} allocations in {sum(one.jobs for one in each)} jobs, {held / end:.1f} held "
        f"at a time on average; at most {sum(one.most_asleep for one in each)} models asleep, "
        f"{max((one.most_asleep for one in each), default=0)} in one allocation",
    ]
    if queued:
        lines.append(f"jobs waited {_spread(queued)} in the queue")
    if cut := sum(one.cut for one in each):
        lines.append(f"{cut} requests were cut off because a job ended or a node failed")
    return lines


def _spread(values: Sequence[float]) -> str:
    middle, most = values[len(values) // 2], values[int(len(values) * 0.99)]
    return f"{middle:.0f} s (p50), {most:.0f} s (p99), {values[-1]:.0f} s (longest)"
