"""Why a model changes its state, and for which model: the reasons that are kept with each change.

Owns these facts, for the journal. `scheduling` decides who makes room, and by which rule.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

import attrs


class Why(Enum):
    """What makes a model change its state; pages and tools show the value."""

    REQUEST = "request"
    OPERATOR = "operator"
    LEASE = "lease"
    PRELOAD = "preload"
    REVIVAL = "revival"
    RESUME = "resume"
    ROOM = "room"
    IDLE = "idle"
    BUDGET = "budget"
    YIELD = "yield"
    PAUSE = "pause"
    RELOAD = "reload"
    ALLOCATION = "allocation"
    DRAIN = "drainTimeout"
    FAILURE = "failure"
    ITSELF = "itself"


@attrs.frozen(kw_only=True)
class Asker:
    """The caller that asks for a model.

    Attributes:
        why: what kind of caller it is.
        request: the id of the request, if a request asks.
        client: the address that the request came from.
        key: the name of the client's API key.
    """

    why: Why
    request: str = ""
    client: str = ""
    key: str = ""

    @classmethod
    def of(cls, one: Asking) -> Asker:
        """Return the caller that this names."""
        return cls(why=one.why, request=one.request, client=one.client, key=one.key)

    @property
    def facts(self) -> dict[str, str]:
        """What the log says of the caller."""
        known = {"client": self.client, "key": self.key}
        return {name: text for name, text in known.items() if text}


class Asking(Protocol):
    """Anything that can name the caller: an `Asker`, or a request itself."""

    @property
    def why(self) -> Why:
        """What kind of caller it is."""

    @property
    def request(self) -> str:
        """The id of the request, if a request asks."""

    @property
    def client(self) -> str:
        """The address that the request came from."""

    @property
    def key(self) -> str:
        """The name of the client's API key."""


AN_OPERATOR = Asker(why=Why.OPERATOR)


@attrs.frozen(kw_only=True)
class Cause:
    """Why one model was asked to change its state.

    Attributes:
        why: what kind of cause it is.
        text: details, in an operator's words.
        model: the model that needs the room, if this model makes room.
        ruling: the number of the ruling behind the change; 0 without a ruling.
        client: the address of the caller, if there was a caller.
        key: the name of the caller's API key.
    """

    why: Why
    text: str = ""
    model: str = ""
    ruling: int = 0
    client: str = ""
    key: str = ""

    @classmethod
    def by(cls, asker: Asker) -> Cause:
        """Return the cause of a change that a caller asks for."""
        return cls(why=asker.why, client=asker.client, key=asker.key)


@attrs.frozen(kw_only=True)
class Victim:
    """A model that must make room for another model.

    Attributes:
        model: its id.
        state: its state when it was asked to make room; the value of a `State`.
        because: why it may be asked now, in an operator's words.
        to_rest: seconds until it has made room, as far as is known.
        to_return: seconds until it could serve again after that, as far as is known.
        idle: seconds for which the model had no request.
    """

    model: str
    state: str
    because: str
    to_rest: float
    to_return: float
    idle: float


@attrs.frozen(kw_only=True)
class Ruling:
    """The decision that one model starts or wakes, and which models make room for it.

    Attributes:
        number: counts up in the order in which rulings are made.
        model: the model that starts or wakes.
        asker: the first caller that waits for the model.
        waited: seconds that the first caller has waited.
        waiting: how many callers wait.
        rule: the rule that says which models may run together.
        victims: the models that make room for it, so far.
        gpus: the GPUs that it was given; the names of devices.
    """

    number: int
    model: str
    asker: Asker
    waited: float
    waiting: int
    rule: str
    victims: tuple[Victim, ...] = ()
    gpus: tuple[str, ...] = ()
