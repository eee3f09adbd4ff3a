"""Warnings about clusters: keys without effect, and commands that fit badly on a node.

Owns what is probably a mistake there. `rules/allocations` has what is certainly wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from configschema.keys.schema import Config, Model
from configschema.text.problems import Fault, Path, and_others

OPEN_TO_ALL = frozenset({"0.0.0.0", "::", "[::]"})  # noqa: S104 -- what is warned of
HOST_OPTIONS = frozenset({"--host", "-host"})
STEPS = frozenset({"srun", "sbatch", "salloc"})
NONE_THERE = "has no effect, because the file has no clusters"


def advise_on_clusters(config: Config, data: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield probable mistakes with clusters. `data` is the file's data with macros expanded."""
    if not config.clusters:
        yield from _without_clusters(config, data)
        return
    used = {model.in_.allocation for model in config.models.values() if model.in_}
    for name in config.allocations:
        if name not in used:
            yield Fault(("allocations", name), "is never requested, because no model runs in it")
    for name, model in config.models.items():
        if model.in_:
            yield from _model(model, ("models", name))


def _without_clusters(config: Config, data: Mapping[str, Any]) -> Iterator[Fault]:
    if data.get("allocations"):
        yield Fault(("allocations",), NONE_THERE)
    users = [name for name in config.models if data["models"][name].get("in") is not None]
    if users:
        yield Fault(("models", users[0], "in"), NONE_THERE + and_others(len(users) - 1))


def _model(model: Model, path: Path) -> Iterator[Fault]:
    words = model.cmd.argv
    if "${PORT}" not in model.cmd.text and "${PORT}" in model.proxy:
        message = "does not use ${PORT}, a free port of the node, so the server listens elsewhere"
        yield Fault((*path, "cmd"), message)
    for option, value in pairwise(words):
        if option in HOST_OPTIONS and value in OPEN_TO_ALL:
            message = "opens the server and its control routes to the whole network: write ${HOST} "
            yield Fault((*path, "cmd"), message + "for {}, or remove it", (value,))
    if words and words[0].rpartition("/")[2] in STEPS:
        message = "starts a step within a step: remove it, the model runs in its allocation already"
        yield Fault((*path, "cmd"), message)
