"""How a model sleeps and wakes: one description for all ways to write it in the file.

Owns the steps, the questions that prove a sleep or a wake, and how ``cmdSleep``/``cmdWake`` and
endpoint lists become both. `presets` has the presets. The supervisor runs the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

import attrs

from configschema.keys.clusters import Entrance
from configschema.keys.commandline import Command
from configschema.keys.sections import Check, Endpoint


@attrs.frozen(kw_only=True)
class Run:
    """A step that runs a command.

    Attributes:
        name: the step's name, for the log.
        command: the command to run.
        limit: seconds it may take; None is the limit of all steps together.
        optional: whether the next step runs even if this one fails.
        repeat: whether it is repeated until it succeeds, within its limit.
    """

    name: str
    command: Command
    limit: int | None = None
    optional: bool = False
    repeat: bool = False


@attrs.frozen(kw_only=True)
class Call:
    """A step that makes one HTTP request.

    Attributes:
        name: the step's name, for the log.
        method: the request's method.
        url: the request's address.
        headers: the request's headers.
        body: JSON text; empty for none.
        expect: statuses that are success; if empty, any 2xx.
        holds: a JMESPath expression that must be true of the JSON answer; empty for none.
        idle_metric: a metric in Prometheus' text format that must be 0 if the answer has it.
        limit: seconds it may take; None is the limit of all such calls.
        optional: whether the next step runs even if this one fails.
        repeat: whether it is repeated until it succeeds, within its limit.
        entrance: the way to the model server, if that runs on a node of a cluster.
    """

    name: str
    method: str
    url: str
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    body: str = attrs.field(default="", repr=False)
    expect: tuple[int, ...] = ()
    holds: str = ""
    idle_metric: str = ""
    limit: int | None = None
    optional: bool = False
    repeat: bool = False
    entrance: Entrance | None = None


@attrs.frozen(kw_only=True)
class Checkpoint:
    """A step of NVIDIA's driver, for all processes of the model that use CUDA.

    Attributes:
        name: the step's name, for the log.
        action: whether the driver suspends or resumes them.
        limit: seconds it may take; None is the limit of all steps together.
        optional: whether the next step runs even if this one fails.
        repeat: whether it is repeated until it succeeds, within its limit.
    """

    name: str
    action: Literal["suspend", "resume"]
    limit: int | None = None
    optional: bool = False
    repeat: bool = False


Step = Run | Call | Checkpoint


@attrs.frozen(kw_only=True)
class Recipe:
    """How one model falls asleep and wakes.

    Attributes:
        sleep: the steps into sleep, in order.
        wake: the steps out of it, in order.
        asleep: what must be true after the sleep, repeated until it is.
        awake: what must be true after the wake, repeated until it is.
        canary: whether a wake must produce a token.
        idle: what must be true before a sleep if a request was cancelled, repeated until it is.
        host_memory: whether a sleep must free host memory.
        sleeps_at_ttl: whether ``ttl`` alone means sleep rather than stop. It does for commands, as
            in llmsnap's first form, and does not for endpoints, as in its later one.
    """

    sleep: tuple[Step, ...] = ()
    wake: tuple[Step, ...] = ()
    asleep: tuple[Step, ...] = ()
    awake: tuple[Step, ...] = ()
    canary: bool = False
    idle: tuple[Step, ...] = ()
    host_memory: bool = False
    sleeps_at_ttl: bool = False

    def __bool__(self) -> bool:
        """Whether the model can sleep at all."""
        return bool(self.sleep and self.wake)

    @property
    def way(self) -> object:
        """Return the parts whose change needs a new process: the steps, but not their headers."""
        bare = [
            attrs.evolve(step, headers={}) if isinstance(step, Call) else step
            for step in (*self.sleep, *self.wake)
        ]
        return len(self.sleep), bare


NO_RECIPE = Recipe()
NO_QUERY: Mapping[str, str] = {}


def from_commands(sleep: Command, wake: Command) -> Recipe:
    """Return the recipe of two commands."""
    return Recipe(
        sleep=(Run(name="cmdSleep", command=sleep),),
        wake=(Run(name="cmdWake", command=wake),),
        sleeps_at_ttl=True,
    )


def from_endpoints(proxy: str, sleep: Sequence[Endpoint], wake: Sequence[Endpoint]) -> Recipe:
    """Return the recipe of steps. Paths are resolved against the model's address, as in URLs."""
    return Recipe(sleep=_steps("sleep step", proxy, sleep), wake=_steps("wake step", proxy, wake))


def verified(recipe: Recipe, proxy: str, asleep: Sequence[Check], awake: Sequence[Check]) -> Recipe:
    """Return the recipe with the operator's own questions, if there are any."""
    return attrs.evolve(
        recipe,
        asleep=_steps("verify.asleep", proxy, asleep) or recipe.asleep,
        awake=_steps("verify.awake", proxy, awake) or recipe.awake,
    )


def with_headers(recipe: Recipe, proxy: str, headers: Mapping[str, str]) -> Recipe:
    """Return the recipe with further headers for its requests to the model server.

    A step's own headers win. Requests to other addresses do not get them, because one may be a key.
    """
    return _at_home(
        recipe, proxy, lambda call: attrs.evolve(call, headers=_merged(headers, call.headers))
    )


def by_way_of(recipe: Recipe, proxy: str, entrance: Entrance) -> Recipe:
    """Return the recipe, whose requests to the model server go through its entrance."""
    return _at_home(recipe, proxy, lambda call: attrs.evolve(call, entrance=entrance))


def _at_home(recipe: Recipe, proxy: str, changed: Callable[[Call], Call]) -> Recipe:
    """Return the recipe with its requests to the model server changed, and no others."""
    home = _host(proxy)

    def put(steps: tuple[Step, ...]) -> tuple[Step, ...]:
        return tuple(
            changed(step) if isinstance(step, Call) and _host(step.url) == home else step
            for step in steps
        )

    return attrs.evolve(
        recipe,
        sleep=put(recipe.sleep),
        wake=put(recipe.wake),
        asleep=put(recipe.asleep),
        idle=put(recipe.idle),
        awake=put(recipe.awake),
    )


def _merged(everyones: Mapping[str, str], own: Mapping[str, str]) -> Mapping[str, str]:
    return {name.lower(): value for given in (everyones, own) for name, value in given.items()}


def _host(url: str) -> tuple[str, str]:
    try:
        parts = urlsplit(url)
    except ValueError:  # a check refuses it
        return "", ""
    return parts.scheme, parts.netloc


def address(proxy: str, reference: str, query: Mapping[str, str] = NO_QUERY) -> str:
    """Return the address of a path or an address, relative to a model's; "" if malformed."""
    try:
        parts = urlsplit(urljoin(proxy, reference))
    except ValueError:  # a check refuses one of the two
        return ""
    if not query:
        return urlunsplit(parts)
    added = urlencode([*parse_qsl(parts.query, keep_blank_values=True), *query.items()])
    return urlunsplit(parts._replace(query=added))


def _steps(what: str, proxy: str, given: Sequence[Endpoint | Check]) -> tuple[Step, ...]:
    return tuple(_step(f"{what} {number}", proxy, one) for number, one in enumerate(given, 1))


def _step(name: str, proxy: str, given: Endpoint | Check) -> Step:
    step: Step = Run(name=f"{name} (cmd)", command=given.cmd)
    if not given.cmd:
        step = Call(
            name=f"{name} ({given.method} {given.endpoint})",
            method=given.method,
            url=address(
                proxy, given.endpoint, given.query if isinstance(given, Endpoint) else NO_QUERY
            ),
            headers=given.headers,
            body=given.body,
            expect=given.expect,
            holds=given.holds,
        )
    step = attrs.evolve(step, limit=given.timeout or None)
    if isinstance(given, Check):
        return attrs.evolve(step, repeat=True)
    return attrs.evolve(step, optional=given.optional, repeat=given.repeat)
