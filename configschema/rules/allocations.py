"""Rules for clusters: which allocation each model runs in, and which of its keys must agree.

Owns the way from a model to its allocation. What only Slurm can refuse is reported when Slurm
refuses it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from configschema.keys.clusters import Allocation, Holding, Where, bytes_of, ports_of
from configschema.keys.schema import Config, Model
from configschema.text.problems import Fault, Meant, Path

_TIME = re.compile(r"[0-9]+|[0-9]+:[0-9]{2}|[0-9]+:[0-9]{2}:[0-9]{2}|[0-9]+-[0-9]+(:[0-9]{2}){0,2}")
_OPTION = re.compile(r"-[A-Za-z-].*", re.DOTALL)
OURS = {
    "sbatch": frozenset(
        [
            *("--comment", "--job-name", "-J", "--parsable", "--wrap", "--array", "-a"),
            *("--wait", "-W", "--test-only", "--output", "-o", "--requeue"),
        ]
    ),
    "srun": frozenset(
        [
            *("--jobid", "--job-name", "-J", "--label", "-l", "--overlap", "--output", "-o"),
            *("--error", "-e", "--input", "-i", "--pty", "--ntasks", "-n", "--nodes", "-N"),
            *("--export", "--multi-prog"),
        ]
    ),
}
"""Options that llamadoze sets itself, to find its jobs and steps again."""
SHARED_ALREADY = ("cluster", "gres", "mem", "cpus", "time", "renew", "sbatch", "ttl")


def holding_for(config: Config, model: Model) -> Holding | None:
    """Return the allocation for a model, or None for a model of this machine."""
    if model.in_ is None:
        return None
    shared = model.in_.allocation
    allocation = config.allocations[shared] if shared else model.in_
    cluster = allocation.cluster or next(iter(config.clusters))
    return Holding(
        name=shared or f"({model.id})",  # no allocation of the file has such a name
        allocation=allocation,
        cluster=cluster,
        settings=config.clusters[cluster],
    )


def check_clusters(config: Config) -> Iterator[Fault]:
    """Yield what is wrong with clusters, with allocations, and with models in them."""
    for name, cluster in config.clusters.items():
        path = ("clusters", name)
        if ports_of(cluster.ports) is None:
            message = "expected two ports such as 60000-60999, found {}"
            yield Fault((*path, "ports"), message, (cluster.ports,))
        for key in ("sbatch", "srun"):
            yield from _options(getattr(cluster, key), (*path, key), OURS[key])
    for name, allocation in config.allocations.items() if config.clusters else ():
        path = ("allocations", name)
        if name.startswith("("):
            yield Fault(path, "names that begin with '(' are reserved for llamadoze: rename it")
        yield from _allocation(allocation, path, config)
    for name, model in config.models.items():
        if model.in_ is not None:
            yield from _model(model, model.in_, ("models", name), config)


def _allocation(allocation: Allocation, path: Path, config: Config) -> Iterator[Fault]:
    names = ", ".join(config.clusters)
    if not allocation.cluster and len(config.clusters) > 1:
        yield Fault(
            (*path, "cluster"), f"is required if there are several clusters: one of {names}"
        )
    elif allocation.cluster and allocation.cluster not in config.clusters:
        meant = Meant(allocation.cluster, config.clusters)
        what = "there is no cluster {}"
        yield Fault((*path, "cluster"), what, (allocation.cluster,), meant=meant)
    if allocation.mem and not bytes_of(allocation.mem):
        message = "expected memory such as 64G or 512M, found {}"
        yield Fault((*path, "mem"), message, (allocation.mem,))
    if allocation.time and not _TIME.fullmatch(allocation.time):
        message = "expected a time as sbatch has it, such as 2-00:00:00 or 90 (minutes), found {}"
        yield Fault((*path, "time"), message, (allocation.time,))
    yield from _options(allocation.sbatch, (*path, "sbatch"), OURS["sbatch"])


def _options(options: tuple[str, ...], path: Path, ours: frozenset[str]) -> Iterator[Fault]:
    for number, one in enumerate(options):
        name = one.partition("=")[0]
        if name in ours or (one[1:2] != "-" and one[:2] in ours):
            message = "llamadoze sets {} itself, to find its jobs and read them: remove it"
            yield Fault((*path, number), message, (name,))
        if not _OPTION.fullmatch(one) or "\0" in one:
            message = "expected an option in one text, such as --qos=high, found {}"
            yield Fault((*path, number), message, (one,))


def _model(model: Model, where: Where, path: Path, config: Config) -> Iterator[Fault]:
    place = (*path, "in")
    if where.allocation:
        given = [key for key in SHARED_ALREADY if getattr(where, key)]
        if where.allocation not in config.allocations:
            meant = Meant(where.allocation, config.allocations)
            what = "there is no allocation {}"
            yield Fault(place, what, (where.allocation,), meant=meant)
        elif given:
            message = "belongs in allocation {} itself, because models share it"
            yield Fault((*place, given[0]), message, (where.allocation,))
    else:
        yield from _allocation(where, place, config)
    if model.detached:
        message = "cmd starts the model in the cluster: remove detached"
        yield Fault((*path, "detached"), message, also=place)
    if model.sleep == "cuda-checkpoint":
        message = "suspends processes of this machine only, but the model runs in a cluster"
        yield Fault((*path, "sleep"), message, also=place)
