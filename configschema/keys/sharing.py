"""The sections that say who runs beside whom, in which order, and in how much memory.

Owns names, types and defaults; those of groups, matrix and queue are llama-swap's. What must fit
together is in `rules.routing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs

from configschema.keys.fields import Count, Gibibytes, Number, Positive, Section, key, keys

DEFAULT_GROUP = "(default)"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Group(Section):
    """Models that share a rule about who runs beside whom."""

    swap: bool = key("whether only one member runs at a time", True)
    exclusive: bool = key("whether a member that runs stops the other groups", True)
    persistent: bool = key("whether other groups leave its members alone", False)
    members: tuple[str, ...] = key("ids of models", ())


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Matrix(Section):
    """Which models may run together, as expressions over their names."""

    vars: Mapping[str, str] = keys("short names of models")
    evict_costs: Mapping[str, Positive] = keys(
        "what it costs to make a model leave; 1 without", name="evict_costs"
    )
    sets: Mapping[str, str] = keys("expressions such as (a | b) & c; +name inlines another set")


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Memory(Section):
    """What a model needs of memory, until it is measured."""

    gpu: Gibibytes | None = key("GiB on each of its GPUs; 0 is a model that uses none", None)
    host: Gibibytes | None = key("GiB of the host's memory", None)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class MemoryRules(Section):
    """The memory that models may have, where that says who runs beside whom."""

    reserve: Count = key("MiB left free on each GPU", Count(512))
    gpus: tuple[str, ...] = key(
        "which GPUs models may have, by index or UUID; without it all that are found", ()
    )
    host_memory: Gibibytes | None = key(
        "GiB that all models together may hold on the host; without it what others leave free",
        None,
    )


@attrs.frozen(kw_only=True, eq=False, repr=False)
class RouterSettings(Section):
    """The rules the router may use."""

    groups: Mapping[str, Group] = keys("as the top-level groups")
    matrix: Matrix | None = key("as the top-level matrix", None)
    memory: MemoryRules = key("for memory", MemoryRules())


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Router(Section):
    """Which rule says who runs beside whom."""

    use: Literal["group", "matrix", "memory"] | None = key(
        "group (the default), matrix, or memory: models run together as long as they fit", None
    )
    settings: RouterSettings = key("the rules", RouterSettings())


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Fifo(Section):
    """The queue's settings."""

    priority: Mapping[str, Number] = keys("priority per model, higher first; 0 without")


@attrs.frozen(kw_only=True, eq=False, repr=False)
class SchedulerSettings(Section):
    """The settings of the schedulers."""

    fifo: Fifo = key("of the only scheduler there is", Fifo())


@attrs.frozen(kw_only=True, eq=False, repr=False)
class SchedulerChoice(Section):
    """Which scheduler says who is served next."""

    use: Literal["fifo"] = key("fifo, the only one there is", "fifo")
    settings: SchedulerSettings = key("its settings", SchedulerSettings())


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Routing(Section):
    """Router and scheduler."""

    router: Router = key("who runs beside whom", Router())
    scheduler: SchedulerChoice = key("who is served next", SchedulerChoice())
