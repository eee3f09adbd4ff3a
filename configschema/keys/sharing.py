"""The sections about which models run together, in which order, and in how much memory.

Owns names, types and defaults; those of groups, matrix and queue are llama-swap's. `rules.routing`
checks what must fit together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs

from configschema.keys.fields import Count, Gibibytes, Number, Positive, Section, key, keys

DEFAULT_GROUP = "(default)"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Group(Section):
    """Models that share a rule about which models run together."""

    swap: bool = key("whether only one member runs at a time", True)
    exclusive: bool = key("whether a running member stops the other groups", True)
    persistent: bool = key("whether its members never make room for other groups", False)
    members: tuple[str, ...] = key("ids of models", ())


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Matrix(Section):
    """Which models may run together, as expressions over their names."""

    vars: Mapping[str, str] = keys("short names of models")
    evict_costs: Mapping[str, Positive] = keys(
        "cost of evicting a model; default: 1", name="evict_costs"
    )
    sets: Mapping[str, str] = keys("expressions such as (a | b) & c; +name inlines another set")


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Memory(Section):
    """The memory that a model needs, until it is measured."""

    gpu: Gibibytes | None = key("GiB on each of its GPUs; 0 for a model without a GPU", None)
    host: Gibibytes | None = key("GiB of host memory", None)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class MemoryRules(Section):
    """The memory for models, if memory decides which models run together."""

    reserve: Count = key("MiB left free on each GPU", Count(512))
    gpus: tuple[str, ...] = key("GPUs for models, by index or UUID; default: all", ())
    host_memory: Gibibytes | None = key(
        "GiB of host memory for all models together; default: what other programs leave free",
        None,
    )


@attrs.frozen(kw_only=True, eq=False, repr=False)
class RouterSettings(Section):
    """The rules of the router."""

    groups: Mapping[str, Group] = keys("as the top-level groups")
    matrix: Matrix | None = key("as the top-level matrix", None)
    memory: MemoryRules = key("settings of the rule memory", MemoryRules())


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Router(Section):
    """The rule about which models run together."""

    use: Literal["group", "matrix", "memory"] | None = key(
        "group (the default), matrix, or memory: models run together as long as they fit", None
    )
    settings: RouterSettings = key("the rules", RouterSettings())


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Fifo(Section):
    """The queue's settings."""

    priority: Mapping[str, Number] = keys("priority per model, higher first; default: 0")


@attrs.frozen(kw_only=True, eq=False, repr=False)
class SchedulerSettings(Section):
    """The settings of the schedulers."""

    fifo: Fifo = key("settings of fifo", Fifo())


@attrs.frozen(kw_only=True, eq=False, repr=False)
class SchedulerChoice(Section):
    """The scheduler, which decides the request that is served next."""

    use: Literal["fifo"] = key("fifo, the only one supported", "fifo")
    settings: SchedulerSettings = key("its settings", SchedulerSettings())


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Routing(Section):
    """Router and scheduler."""

    router: Router = key("which models run together", Router())
    scheduler: SchedulerChoice = key("the order of requests", SchedulerChoice())
