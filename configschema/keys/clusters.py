"""Keys about clusters: their allocations, and the allocation that a model runs in.

Owns names, types and defaults, and Slurm's notation for amounts of memory. `rules/allocations`
checks what must fit together.
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
    """A cluster of machines, and how llamadoze requests jobs there."""

    engine: Literal["slurm"] = key(
        "the cluster's scheduler: slurm, the only one supported", "slurm"
    )
    partition: str = key("partition for its jobs; default: the cluster's own", "")
    account: str = key("account that its jobs are charged to", "")
    sbatch: tuple[str, ...] = key("further options of sbatch for every allocation", ())
    srun: tuple[str, ...] = key("further options of srun for every model", ())
    folder: str = key("a folder shared by its nodes and this machine, in which models start", "")
    python: str = key("the Python of its nodes, 3.8 or newer", "python3")
    ports: str = key(
        "ports of the nodes that this machine can reach, such as 60000-60999; default: all", ""
    )
    queue_timeout: Timeout = key("seconds a request waits for a queued allocation", QUEUE_TIMEOUT)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Allocation(Section):
    """A part of a cluster, for the models that run in it one after another."""

    cluster: str = key("the cluster's name; not needed if there is only one", "")
    gres: str = key("generic resources, such as gpu:1", "")
    mem: str = key(
        "host memory of each node, such as 64G, for all its sleeping models together", ""
    )
    cpus: Count = key("CPUs; 0 is the cluster's own default", Count(0))
    nodes: Positive = key("number of nodes; a model starts on the first", Positive(1))
    time: str = key("time limit in the form of sbatch --time", "")
    renew: Seconds | None = key(
        "seconds before its end at which llamadoze requests the next one; default: a tenth of its "
        "time, at most 900",
        None,
    )
    sbatch: tuple[str, ...] = key("further options of sbatch", ())
    ttl: Seconds = key(
        "idle seconds until a model in it stops, asleep or not, unless the model has its own ttl; "
        "0 is never",
        Seconds(0),
    )
    idle: Seconds = key("seconds it is kept without a model awake or asleep in it", IDLE)

    @property
    def memory(self) -> int | None:
        """Its host memory in bytes; None if the file does not say."""
        return bytes_of(self.mem)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Where(Allocation):
    """The allocation that a model runs in: one that models share, or its own."""

    allocation: str = key("a name below allocations; without it the model has its own", "")


@attrs.frozen(kw_only=True)
class Holding:
    """An allocation for one model or for several.

    Attributes:
        name: the allocation's name; the model's name in brackets if it is a model's own.
        allocation: what llamadoze requests.
        cluster: the name of the cluster.
        settings: the cluster's settings.
    """

    name: str
    allocation: Allocation
    cluster: str
    settings: Cluster

    @property
    def asked(self) -> object:
        """Everything that a job and its steps are requested with. A change needs another job."""
        one, all_of_it = self.allocation, self.settings
        own = one.gres, one.mem, one.cpus, one.nodes, one.time, one.sbatch
        common = all_of_it.partition, all_of_it.account, all_of_it.sbatch, all_of_it.srun
        return self.name, self.cluster, own, common, all_of_it.folder, all_of_it.python


def bytes_of(text: str) -> int | None:
    """Return the bytes of an amount in Slurm's notation, where no unit means megabytes."""
    found = _MEMORY.fullmatch(text.strip())
    return int(float(found[1]) * _UNITS[found[2].upper() or "M"]) if found else None


def ports_of(text: str) -> tuple[int, int] | None:
    """Return the first and the last port of a range; None if the text is no range."""
    if not text:
        return ANY_PORT
    found = _PORTS.fullmatch(text.replace(" ", ""))
    first, last = (int(found[1]), int(found[2])) if found else (0, 0)
    return (first, last) if 0 < first <= last < 1 << 16 else None


@attrs.frozen
class Entrance:
    """The way to a model server on another machine.

    Attributes:
        host: the machine.
        port: the port that the launcher listens on there.
        key: the key to show there.
    """

    host: str
    port: int
    key: Secret = attrs.field(repr=False)


@attrs.frozen
class Landing:
    """The place where a model server runs after its start in a cluster.

    Attributes:
        host: the host that it listens on, as seen from its own machine.
        port: the port that it listens on there.
        entrance: the way to it.
    """

    host: str
    port: int
    entrance: Entrance
