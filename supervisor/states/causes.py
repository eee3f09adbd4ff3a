"""Why a model changes its state, and for whom: what is kept beside what was done.

Owns these facts, for the journal. Who decides, and by what rule, is `scheduling`'s.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

import attrs


class Why(Enum):
    """What makes a model change its state; the value is what pages and tools are told."""

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
    """Who asks for a model.

    Attributes:
        why: what kind of asker it is.
        request: the id of the request, if it is one.
        client: the address that it came from.
        key: the name of the API key that it showed.
    """

    why: Why
    request: str = ""
    client: str = ""
    key: str = ""

    @classmethod
    def of(cls, one: Asking) -> Asker:
        """Return who that is."""
        return cls(why=one.why, request=one.request, client=one.client, key=one.key)

    @property
    def facts(self) -> dict[str, str]:
        """What the log says of who asks."""
        known = {"client": self.client, "key": self.key}
        return {name: text for name, text in known.items() if text}


class Asking(Protocol):
    """Whatever can say who asks: an `Asker`, or a request itself."""

    @property
    def why(self) -> Why:
        """What kind of asker it is."""

    @property
    def request(self) -> str:
        """The id of the request, if it is one."""

    @property
    def client(self) -> str:
        """The address that it came from."""

    @property
    def key(self) -> str:
        """The name of the API key that it showed."""


AN_OPERATOR = Asker(why=Why.OPERATOR)


@attrs.frozen(kw_only=True)
class Cause:
    """Why one model was asked to change its state.

    Attributes:
        why: what kind of cause it is.
        text: more of it, in an operator's words.
        model: that needs the room, where one makes room.
        ruling: the number of the ruling that it follows from; 0 without one.
        client: the address of who asked for it, where somebody did.
        key: the name of the API key that was shown.
    """

    why: Why
    text: str = ""
    model: str = ""
    ruling: int = 0
    client: str = ""
    key: str = ""

    @classmethod
    def by(cls, asker: Asker) -> Cause:
        """Return that somebody asks for it."""
        return cls(why=asker.why, client=asker.client, key=asker.key)


@attrs.frozen(kw_only=True)
class Victim:
    """A model that must leave for another.

    Attributes:
        model: its id.
        state: where it stood when it was asked; the value of a `State`.
        because: why it may be asked now, in an operator's words.
        to_rest: seconds until it has made room, as far as is known.
        to_return: seconds until it would serve again after that, as far as is known.
        idle: seconds for which nobody had used it.
    """

    model: str
    state: str
    because: str
    to_rest: float
    to_return: float
    idle: float


@attrs.frozen(kw_only=True)
class Ruling:
    """That one model comes up, and who leaves for it.

    Attributes:
        number: in the order in which they were made.
        model: that comes up.
        asker: the first of those who wait for it.
        waited: seconds that the first has waited.
        waiting: how many wait.
        rule: what says who may run beside whom.
        victims: those that leave for it, so far.
        gpus: that it was given; the names of devices.
    """

    number: int
    model: str
    asker: Asker
    waited: float
    waiting: int
    rule: str
    victims: tuple[Victim, ...] = ()
    gpus: tuple[str, ...] = ()
