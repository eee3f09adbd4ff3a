"""How a model sleeps and wakes: one description, whichever dialect of the file it came from.

Owns the steps, the questions that prove a sleep or a wake, and how ``cmdSleep``/``cmdWake`` and
endpoint lists become both. Presets are in `presets`; running any of it is the supervisor's.
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
        name: of the step, for the log.
        command: what to run.
        limit: seconds it may take; None is the limit of the whole.
        optional: whether the next step is taken even if this one fails.
        repeat: whether it is tried again until it succeeds, within its limit.
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
        name: of the step, for the log.
        method: of the request.
        url: where to.
        headers: of the request.
        body: JSON text, or nothing.
        expect: statuses that are success; none is any 2xx.
        holds: a JMESPath expression that must be true of the JSON answer; nothing asks for none.
        idle_metric: a metric of Prometheus' text that must be 0, if the answer has it.
        limit: seconds it may take; None is the limit of all like it.
        optional: whether the next step is taken even if this one fails.
        repeat: whether it is tried again until it succeeds, within its limit.
        entrance: the way to the model server, where that is on a node of a cluster.
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
    """A step that NVIDIA's driver takes with all processes of the model that use CUDA.

    Attributes:
        name: of the step, for the log.
        action: whether they are suspended or go on.
        limit: seconds it may take; None is the limit of the whole.
        optional: whether the next step is taken even if this one fails.
        repeat: whether it is tried again until it succeeds, within its limit.
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
        asleep: what must hold after the first, asked again until it does.
        awake: what must hold after the second.
        canary: whether a token is asked for after a wake.
        idle: what must hold before a sleep if a request was cut, asked again until it does.
        host_memory: whether a sleep must free host memory.
        sleeps_at_ttl: whether ``ttl`` alone means sleep rather than stop: so it is for commands,
            after llmsnap's first form, and not for endpoints, after its later one.
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
        """Return what a process must be started anew for, if it changes: the steps, but no keys."""
        bare = [
            attrs.evolve(step, headers={}) if isinstance(step, Call) else step
            for step in (*self.sleep, *self.wake)
        ]
        return len(self.sleep), bare


NO_RECIPE = Recipe()
NO_QUERY: Mapping[str, str] = {}


def from_commands(sleep: Command, wake: Command) -> Recipe:
    """Describe sleep by two commands."""
    return Recipe(
        sleep=(Run(name="cmdSleep", command=sleep),),
        wake=(Run(name="cmdWake", command=wake),),
        sleeps_at_ttl=True,
    )


def from_endpoints(proxy: str, sleep: Sequence[Endpoint], wake: Sequence[Endpoint]) -> Recipe:
    """Describe sleep by steps, with paths on the model's host, as URL references go."""
    return Recipe(sleep=_steps("sleep step", proxy, sleep), wake=_steps("wake step", proxy, wake))


def verified(recipe: Recipe, proxy: str, asleep: Sequence[Check], awake: Sequence[Check]) -> Recipe:
    """Return a recipe with questions of the operator's own, where there are any."""
    return attrs.evolve(
        recipe,
        asleep=_steps("verify.asleep", proxy, asleep) or recipe.asleep,
        awake=_steps("verify.awake", proxy, awake) or recipe.awake,
    )


def with_headers(recipe: Recipe, proxy: str, headers: Mapping[str, str]) -> Recipe:
    """Return a recipe whose requests to the model server have these headers, too.

    A step's own win. What goes to another address does not get them: one may be a key.
    """
    return _at_home(
        recipe, proxy, lambda call: attrs.evolve(call, headers=_merged(headers, call.headers))
    )


def by_way_of(recipe: Recipe, proxy: str, entrance: Entrance) -> Recipe:
    """Return a recipe whose requests to the model server go through its entrance."""
    return _at_home(recipe, proxy, lambda call: attrs.evolve(call, entrance=entrance))


def _at_home(recipe: Recipe, proxy: str, changed: Callable[[Call], Call]) -> Recipe:
    """Return a recipe whose requests to the model server are changed, and no others."""
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
    except ValueError:  # it is refused for it
        return "", ""
    return parts.scheme, parts.netloc


def address(proxy: str, reference: str, query: Mapping[str, str] = NO_QUERY) -> str:
    """Return the address that a path or an address leads to from a model's; "" if nowhere."""
    try:
        parts = urlsplit(urljoin(proxy, reference))
    except ValueError:  # one of the two is refused for it
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
