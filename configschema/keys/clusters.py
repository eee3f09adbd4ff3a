"""Keys of the file about clusters: what is held there, and in which part of it a model runs.

Owns names, types and defaults, and the form in which Slurm says how much memory is meant. What must
fit together is in `rules/allocations`.
"""

from __future__ import annotations

import re
from typing import Literal

import attrs

from configschema.keys.fields import Count, Positive, Seconds, Secret, Section, Timeout, key

QUEUE_TIMEOUT = Timeout(600)
IDLE = Seconds(300)
_MEMORY = re.compile(r"([0-9]+(?:\.[0-9]+)?)([KMGT]?)B?", re.IGNORECASE)
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_PORTS = re.compile(r"([0-9]{1,5})-([0-9]{1,5})")
ANY_PORT = (0, 0)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Cluster(Section):
    """A cluster of machines, and how jobs are asked of its engine."""

    engine: Literal["slurm"] = key("slurm, the only one there is", "slurm")
    partition: str = key("where its jobs wait; without it the cluster's own default", "")
    account: str = key("who they are charged to", "")
    sbatch: tuple[str, ...] = key("further options of sbatch, for every allocation", ())
    srun: tuple[str, ...] = key("further options of srun, for every model", ())
    folder: str = key("a folder that its nodes share with this machine: models start in it", "")
    python: str = key("the Python of its nodes, 3.8 or newer", "python3")
    ports: str = key(
        "ports of the nodes that this machine reaches, such as 60000-60999; without it any", ""
    )
    queue_timeout: Timeout = key(
        "seconds a request waits for an allocation that is queued", QUEUE_TIMEOUT
    )


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Allocation(Section):
    """What is held of a cluster, for the models that run in it one after the other."""

    cluster: str = key("whose; may be left out where there is one only", "")
    gres: str = key("generic resources, such as gpu:1", "")
    mem: str = key("host memory of each node, such as 64G: all that sleep in it together", "")
    cpus: Count = key("CPUs; 0 is the cluster's own default", Count(0))
    nodes: Positive = key("how many nodes; a model starts on the first", Positive(1))
    time: str = key("how long it is asked for, as sbatch --time has it", "")
    renew: Seconds | None = key(
        "seconds before its end that the next one is asked for; else a tenth of its time, at most "
        "900",
        None,
    )
    sbatch: tuple[str, ...] = key("further options of sbatch", ())
    ttl: Seconds = key(
        "idle seconds until a model in it stops, asleep or not, that has no such time of its own; "
        "0 is never",
        Seconds(0),
    )
    idle: Seconds = key("seconds it is kept while no model is awake or asleep in it", IDLE)

    @property
    def memory(self) -> int | None:
        """The bytes of host memory that it holds; None if that is not said."""
        return bytes_of(self.mem)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Where(Allocation):
    """In which allocation a model runs: one that others share, or its own."""

    allocation: str = key("the name of one of allocations; without it the model has its own", "")


@attrs.frozen(kw_only=True)
class Holding:
    """What is held of a cluster for one model, or for several.

    Attributes:
        name: of the allocation; one that is a model's own has the model's in brackets.
        allocation: what is asked for.
        cluster: the name of the cluster.
        settings: of the cluster.
    """

    name: str
    allocation: Allocation
    cluster: str
    settings: Cluster

    @property
    def asked(self) -> object:
        """All that a job and its steps are asked with: another makes another job."""
        one, all_of_it = self.allocation, self.settings
        own = one.gres, one.mem, one.cpus, one.nodes, one.time, one.sbatch
        common = all_of_it.partition, all_of_it.account, all_of_it.sbatch, all_of_it.srun
        return self.name, self.cluster, own, common, all_of_it.folder, all_of_it.python


def bytes_of(text: str) -> int | None:
    """Return an amount of memory as Slurm writes it, which counts in megabytes without a unit."""
    found = _MEMORY.fullmatch(text.strip())
    return int(float(found[1]) * _UNITS[found[2].upper() or "M"]) if found else None


def ports_of(text: str) -> tuple[int, int] | None:
    """Return the first and the last of a range of ports; None if it is none."""
    if not text:
        return ANY_PORT
    found = _PORTS.fullmatch(text.replace(" ", ""))
    first, last = (int(found[1]), int(found[2])) if found else (0, 0)
    return (first, last) if 0 < first <= last < 1 << 16 else None


@attrs.frozen
class Entrance:
    """Where a model server on another machine is reached.

    Attributes:
        host: of the machine.
        port: that its launcher listens on there.
        key: that is shown there.
    """

    host: str
    port: int
    key: Secret = attrs.field(repr=False)


@attrs.frozen
class Landing:
    """Where a model server has come to run.

    Attributes:
        host: that it listens on, as seen on its own machine.
        port: the same.
        entrance: the way to it.
    """

    host: str
    port: int
    entrance: Entrance
