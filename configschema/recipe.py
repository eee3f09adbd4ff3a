"""How a model sleeps and wakes: one description, whichever dialect of the file it came from.

Owns the steps and how ``cmdSleep``/``cmdWake`` and llmsnap's endpoint lists become steps. Running
them is the supervisor's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urljoin

import attrs

from configschema.commandline import Command
from configschema.sections import Endpoint


@attrs.frozen
class Run:
    """A step that runs a command, within the limit of the whole.

    Attributes:
        name: of the step, for the log.
        command: what to run.
    """

    name: str
    command: Command


@attrs.frozen
class Call:
    """A step that makes one HTTP request; any 2xx answer is success.

    Attributes:
        name: of the step, for the log.
        method: of the request.
        url: where to.
        body: JSON text, or nothing.
        limit: seconds it may take; None is the global request timeout.
    """

    name: str
    method: str
    url: str
    body: str = attrs.field(default="", repr=False)
    limit: int | None = None


Step = Run | Call


@attrs.frozen
class Recipe:
    """How one model falls asleep and wakes.

    Attributes:
        sleep: the steps into sleep, in order.
        wake: the steps out of it, in order.
        sleeps_at_ttl: whether ``ttl`` alone means sleep rather than stop: so it is for commands,
            after llmsnap's first form, and not for endpoints, after its later one.
    """

    sleep: tuple[Step, ...] = ()
    wake: tuple[Step, ...] = ()
    sleeps_at_ttl: bool = False

    def __bool__(self) -> bool:
        """Whether the model can sleep at all."""
        return bool(self.sleep and self.wake)


NO_RECIPE = Recipe()


def from_commands(sleep: Command, wake: Command) -> Recipe:
    """Describe sleep by two commands."""
    return Recipe((Run("cmdSleep", sleep),), (Run("cmdWake", wake),), sleeps_at_ttl=True)


def from_endpoints(proxy: str, sleep: Sequence[Endpoint], wake: Sequence[Endpoint]) -> Recipe:
    """Describe sleep by requests to paths on the model's host, as URL references go."""
    return Recipe(
        tuple(_call("sleep", proxy, number, step) for number, step in enumerate(sleep, 1)),
        tuple(_call("wake", proxy, number, step) for number, step in enumerate(wake, 1)),
    )


def _call(what: str, proxy: str, number: int, step: Endpoint) -> Call:
    name = f"{what} step {number} ({step.method} {step.endpoint})"
    try:
        url = urljoin(proxy, step.endpoint)
    except ValueError:  # one of the two is refused for it
        url = ""
    return Call(name, step.method, url, step.body, step.timeout or None)
