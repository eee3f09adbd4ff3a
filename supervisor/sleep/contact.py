"""How model servers are reached and measured: the ways that the supervisor is given.

Owns the form of these ways. The proxy does HTTP itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs

from configschema import Call, Model
from supervisor.places.running import Weigh
from supervisor.processes import memory
from supervisor.sleep.readiness import Probe
from supervisor.sleep.steps import Caller


@attrs.frozen
class Token:
    """What a model answered when it was asked for one token.

    Attributes:
        text: the token; an empty text may be a token, too.
        route: the route at which it was asked.
        failure: why there is no token; None if there is one.
        is_unsuited: whether the model is of a kind that never generates a token.
    """

    text: str = ""
    route: str = ""
    failure: str | None = None
    is_unsuited: bool = False


OneToken = Callable[[Model, str], Awaitable[Token]]
"""Asks a model for one token at a route, or at the first route that answers if it is empty.

The question is always the same. Cancel it when it takes too long.
"""


async def no_token(_: Model, __: str) -> Token:
    """Ask nothing."""
    return Token(failure="nobody asks", is_unsuited=True)


Progress = Callable[[Model, Callable[[float], None]], Awaitable[None]]
"""Reports how much of a load is done, 0 to 1, for as long as the server tells.

Returns if there is nothing to report, and may fail in any way. Cancel it when the load is over.
"""


async def no_progress(_: Model, __: Callable[[float], None]) -> None:
    """Report nothing."""


@attrs.frozen
class Answer:
    """What a model server answered.

    Attributes:
        data: its JSON; None without JSON.
        failure: what it did instead of a good answer; None if it gave one.
    """

    data: object = None
    failure: str | None = None


Ask = Callable[[Call], Awaitable[Answer]]
"""Makes one HTTP request and reads its answer. Cancel it when it takes too long."""


async def no_answer(_: Call) -> Answer:
    """Ask nothing."""
    return Answer(failure="nobody asks")


@attrs.frozen(kw_only=True)
class Contact:
    """The ways to model servers.

    Attributes:
        probe: asks once whether a model is ready.
        call: makes one HTTP step into sleep or out of it.
        one_token: asks for a token.
        ask: makes one HTTP request whose answer is read.
        progress: reports how much of a load is done.
        weigh: measures the memory of a process tree.
    """

    probe: Probe
    call: Caller
    one_token: OneToken = no_token
    ask: Ask = no_answer
    progress: Progress = no_progress
    weigh: Weigh = attrs.field(factory=lambda: memory.weigh)
