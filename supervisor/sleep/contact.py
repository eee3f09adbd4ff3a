"""How model servers are reached and measured: what the supervisor is given for it.

Owns the form of these ways. HTTP itself is the proxy's business.
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
    """What a model said when it was asked for one token.

    Attributes:
        text: the token; nothing may be a token, too.
        route: where it was asked.
        failure: why there is none; None if there is one.
        is_unsuited: whether the model is of another kind, and will never say anything.
    """

    text: str = ""
    route: str = ""
    failure: str | None = None
    is_unsuited: bool = False


OneToken = Callable[[Model, str], Awaitable[Token]]
"""Ask a model for one token at a route, or at the first that answers if that is empty.

It is always the same question. Cancel it when it takes too long.
"""


async def no_token(_: Model, __: str) -> Token:
    """Have no way to ask."""
    return Token(failure="nobody asks", is_unsuited=True)


Progress = Callable[[Model, Callable[[float], None]], Awaitable[None]]
"""Hear from a model's server how much of a load is done, 0 to 1, for as long as that may be.

It returns where there is nothing to hear, and may fail in any way. Cancel it when the load is over.
"""


async def no_progress(_: Model, __: Callable[[float], None]) -> None:
    """Hear nothing."""


@attrs.frozen
class Answer:
    """What a model server answered.

    Attributes:
        data: its JSON; None if there is none.
        failure: what it did instead of a good answer; None if it gave one.
    """

    data: object = None
    failure: str | None = None


Ask = Callable[[Call], Awaitable[Answer]]
"""Make one HTTP request and read its answer. Cancel it when it takes too long."""


async def no_answer(_: Call) -> Answer:
    """Have no way to ask."""
    return Answer(failure="nobody asks")


@attrs.frozen(kw_only=True)
class Contact:
    """The ways to model servers.

    Attributes:
        probe: asks once whether a model is ready.
        call: makes one HTTP step into sleep or out of it.
        one_token: asks for a token.
        ask: makes one HTTP request whose answer is read.
        progress: hears how much of a load is done.
        weigh: tells what memory a process tree holds.
    """

    probe: Probe
    call: Caller
    one_token: OneToken = no_token
    ask: Ask = no_answer
    progress: Progress = no_progress
    weigh: Weigh = attrs.field(factory=lambda: memory.weigh)
