"""From the name a request has to the model that answers it: profile, selector, alias, peer.

Owns the profile in use and the names of the configuration in effect.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

import attrs

from configschema import Config
from proxy.http.bodies import Limits
from proxy.http.errors import BadRequest, needs_restart
from proxy.naming.access import Keys
from proxy.naming.closedpaths import Controls
from proxy.naming.directory import Directory, Target
from proxy.naming.origins import Guard
from proxy.naming.selectors import Selectors
from supervisor import State, Supervisor, UnknownModel

if TYPE_CHECKING:
    import re2

LONGEST_MEANT = 100  # characters; to compare takes the square of it


@attrs.frozen
class InEffect:
    """What follows from one configuration for the way of requests.

    Attributes:
        config: the configuration.
        directory: its names.
        selectors: how their targets are chosen.
        keys: what clients must show.
        guard: whose browser may ask.
        controls: the paths of model servers that are closed.
        limits: how long bodies may be.
    """

    config: Config
    directory: Directory
    selectors: Selectors
    keys: Keys
    guard: Guard
    controls: Controls
    limits: Limits

    @classmethod
    def of(cls, config: Config) -> InEffect:
        """Work it out."""
        return cls(
            config,
            Directory(config),
            Selectors(),
            Keys.of(config),
            Guard.of(config),
            Controls.of(config),
            Limits.of(config.max_body, config.max_upload, config.max_bodies),
        )

    def refuse_control(self, name: str, path: bytes) -> None:
        """Refuse a path below a model that controls its server.

        Raises:
            BadRequest: it does.
        """
        model = self.config.find(name)
        self.controls.refuse(model.id if model else "", path)

    def is_ignored(self, path: str) -> bool:
        """Whether a path below a model does not start it (``upstream.ignorePaths``).

        Raises:
            BadRequest: llamadoze must be started again before that can be known.
        """
        return any(_pattern(text).search(path) for text in self.config.upstream.ignore_paths)


@cache
def _pattern(text: str) -> re2._Regexp[str]:
    try:
        import re2  # 2 MiB that most never need
    except ImportError as error:
        raise needs_restart("paths below /upstream", error) from error
    return re2.compile(text)


@attrs.define(eq=False)
class Resolver:
    """Find who answers. A reload puts ``hooks.on_startup.profile`` into use, as in llama-swap.

    Attributes:
        supervisor: has the configuration in effect.
        on_profile: told when another profile is used.
    """

    supervisor: Supervisor
    on_profile: Callable[[], None] = attrs.field(default=lambda: None)
    _now: InEffect | None = attrs.field(default=None, init=False)
    _profile: str | None = attrs.field(default=None, init=False)

    @property
    def now(self) -> InEffect:
        """What is in effect; it begins anew if a reload has put another configuration into it."""
        config = self.supervisor.config
        if self._now is None or self._now.config is not config:
            self._now, self._profile = InEffect.of(config), config.hooks.on_startup.profile or None
            self.on_profile()
        return self._now

    @property
    def directory(self) -> Directory:
        """The names of the configuration in effect."""
        return self.now.directory

    @property
    def config(self) -> Config:
        """The configuration in effect."""
        return self.now.config

    @property
    def profile(self) -> str | None:
        """The profile in use."""
        _ = self.now  # a reload may have put another one into use
        return self._profile

    @profile.setter
    def profile(self, name: str | None) -> None:
        if name is not None and name not in self.config.profiles:
            raise BadRequest(f"there is no profile '{name}'", status=404)
        self._profile = name
        self.on_profile()

    def profiles(self) -> dict[str, Any]:
        """Return all profiles as llama-swap lists them."""
        listed = [
            {"id": name, "description": profile.description, "pins": dict(profile.pins)}
            for name, profile in sorted(self.config.profiles.items())
        ]
        return {"active": self.profile, "profiles": listed}

    @property
    def pins(self) -> dict[str, str | None]:
        """The names that the profile in use replaces; None or nothing switches one off."""
        return dict(self.config.profiles[self.profile].pins) if self.profile else {}

    def pinned(self, name: str) -> str:
        """Return what the profile in use makes of a name.

        Raises:
            UnknownModel: the profile switches it off.
        """
        pins = self.pins
        if name not in pins:
            return name
        if not (target := pins[name]):
            raise UnknownModel(name)
        return target

    def choose(self, name: str) -> AbstractContextManager[Target]:
        """Find who answers to a name; a selector counts it for as long as the block lasts.

        Raises:
            UnknownModel: nobody does.
            BadRequest: its selector has no target that can be used; on entering.
        """
        now = self.now
        if self._profile is not None:
            name = self.pinned(name)
        selector = now.config.selectors.get(name)
        if selector is None:
            return nullcontext(now.directory.find(name) or self.find(name))
        targets = [found for target in selector.targets if (found := now.directory.find(target))]
        return now.selectors.chosen(name, selector, targets, self._state_of)

    def find(self, name: str) -> Target:
        """Find whose name this is, whatever the profile; selectors have none.

        Raises:
            UnknownModel: nobody's.
        """
        if (found := self.directory.find(name)) is None:
            raise UnknownModel(name, self._like(name))
        return found

    def _like(self, name: str) -> str | None:
        """Return a name that may have been meant."""
        try:
            from difflib import get_close_matches  # for errors only
        except ImportError:  # Python's own files have gone
            return None
        names = [*self.directory.names(), *self.config.selectors]
        return next(iter(get_close_matches(name[:LONGEST_MEANT], names, 1)), None)

    def _state_of(self, model: str) -> State:
        """Return how a model stands; one that may not start yet is of no more use than one that
        leaves."""
        server = self.supervisor.servers[model]
        return State.STOPPING if server.held_back else server.at.state
