"""From the name a request has to the model that answers it: profile, selector, alias, peer.

Owns the profile in use and the names of the configuration in effect.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from difflib import get_close_matches
from typing import Any

import attrs

from configschema import Config
from proxy.http.bodies import Limits
from proxy.http.errors import BadRequest
from proxy.naming.access import Keys
from proxy.naming.directory import Directory, Target
from proxy.naming.selectors import Selectors
from supervisor import State, Supervisor, UnknownModel

LONGEST_MEANT = 100  # characters; to compare takes the square of it


@attrs.define(eq=False)
class Resolver:
    """Find who answers. A reload puts no profile into use, as in llama-swap.

    Attributes:
        supervisor: has the configuration in effect.
        on_profile: told when another profile is used.
    """

    supervisor: Supervisor
    on_profile: Callable[[], None] = attrs.field(default=lambda: None)
    _selectors: Selectors = attrs.field(factory=Selectors, init=False)
    _directory: Directory | None = attrs.field(default=None, init=False)
    _profile: str | None = attrs.field(default=None, init=False)
    _limits: Limits = attrs.field(factory=Limits, init=False)
    _keys: Keys = attrs.field(factory=lambda: Keys(()), init=False)

    @property
    def directory(self) -> Directory:
        """The names of the configuration in effect."""
        return self._look()

    def _look(self) -> Directory:
        """Begin anew if a reload has put another configuration into effect."""
        config = self.supervisor.config
        if self._directory is None or self._directory.config is not config:
            self._directory, self._profile = Directory(config), None
            self._selectors, self._keys = Selectors(), Keys.of(config.api_keys)
            self._limits = Limits.of(config.max_body, config.max_upload)
            self.on_profile()
        return self._directory

    @property
    def config(self) -> Config:
        """The configuration in effect."""
        return self.directory.config

    @property
    def keys(self) -> Keys:
        """The keys that clients must show one of."""
        self._look()
        return self._keys

    @property
    def limits(self) -> Limits:
        """How long bodies may be."""
        self._look()
        return self._limits

    @property
    def profile(self) -> str | None:
        """The profile in use."""
        self._look()
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
        if self._profile is None and self._directory is not None:
            return name
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
        directory = self._look()
        name = self.pinned(name)
        selector = self.config.selectors.get(name)
        if selector is None:
            return nullcontext(self.find(name))
        targets = [found for target in selector.targets if (found := directory.find(target))]
        return self._selectors.chosen(name, selector, targets, self._state_of)

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
        names = [*self.directory.names(), *self.config.selectors]
        return next(iter(get_close_matches(name[:LONGEST_MEANT], names, 1)), None)

    def _state_of(self, model: str) -> State:
        """Return how a model stands; one that may not start yet is of no more use than one that
        leaves."""
        server = self.supervisor.servers[model]
        return State.STOPPING if server.held_back else server.at.state
