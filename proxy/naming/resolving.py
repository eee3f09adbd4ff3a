"""From the name in a request to the model that answers it: profile, selector, alias, peer.

Owns the profile in use and the names of the configuration in effect.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

import attrs

from configschema import Config
from configschema.text.likeness import nearest
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


@attrs.frozen
class InEffect:
    """The rules for requests that follow from one configuration.

    Attributes:
        config: the configuration.
        directory: the configuration's names.
        selectors: chooses the targets of selectors.
        keys: the API keys of clients.
        guard: decides about requests from browsers.
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
        """Return the rules of a configuration."""
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
            BadRequest: the path controls the server.
        """
        model = self.config.find(name)
        self.controls.refuse(model.id if model else "", path)

    def is_ignored(self, path: str) -> bool:
        """Whether a path below a model does not start it (``upstream.ignorePaths``).

        Raises:
            BadRequest: this process can no longer load `re2`; it must be restarted.
        """
        return any(_pattern(text).search(path) for text in self.config.upstream.ignore_paths)


@cache
def _pattern(text: str) -> re2._Regexp[str]:
    try:
        import re2  # 2 MiB that most configurations never need
    except ImportError as error:
        raise needs_restart("paths below /upstream", error) from error
    return re2.compile(text)


@attrs.define(eq=False)
class Resolver:
    """Find the model for a name. As in llama-swap, a reload selects ``hooks.on_startup.profile``.

    Attributes:
        supervisor: has the configuration in effect.
        on_profile: called when another profile is used.
    """

    supervisor: Supervisor
    on_profile: Callable[[], None] = attrs.field(default=lambda: None)
    _now: InEffect | None = attrs.field(default=None, init=False)
    _profile: str | None = attrs.field(default=None, init=False)

    @property
    def now(self) -> InEffect:
        """The rules in effect. They are made again after a reload has changed the configuration."""
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
        _ = self.now  # a reload may have selected another profile
        return self._profile

    @profile.setter
    def profile(self, name: str | None) -> None:
        if name is not None and name not in self.config.profiles:
            raise BadRequest(f"there is no profile '{name}'", status=404)
        self._profile = name
        self.on_profile()

    def profiles(self) -> dict[str, Any]:
        """Return all profiles in the form of llama-swap's list."""
        listed = [
            {"id": name, "description": profile.description, "pins": dict(profile.pins)}
            for name, profile in sorted(self.config.profiles.items())
        ]
        return {"active": self.profile, "profiles": listed}

    @property
    def pins(self) -> dict[str, str | None]:
        """The names that the profile in use replaces. None or nothing switches a name off."""
        return dict(self.config.profiles[self.profile].pins) if self.profile else {}

    def pinned(self, name: str) -> str:
        """Return the name with which the profile in use replaces a name.

        Raises:
            UnknownModel: the profile switches the name off.
        """
        pins = self.pins
        if name not in pins:
            return name
        if not (target := pins[name]):
            raise UnknownModel(name)
        return target

    def choose(self, name: str) -> AbstractContextManager[Target]:
        """Find the model for a name. A selector counts the choice for as long as the block lasts.

        Raises:
            UnknownModel: no model has this name.
            BadRequest: on entering: the selector has no available target.
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
        """Find the model for a name, without profiles and selectors.

        Raises:
            UnknownModel: no model has this name.
        """
        if (found := self.directory.find(name)) is None:
            raise UnknownModel(name, self._like(name))
        return found

    def _like(self, name: str) -> str | None:
        """Return a name that may have been meant."""
        return nearest(name, [*self.directory.names(), *self.config.selectors])

    def _state_of(self, model: str) -> State:
        """Return a model's state. A model that may not start yet counts as stopping, since both
        cannot be used."""
        server = self.supervisor.servers[model]
        return State.STOPPING if server.held_back else server.at.state
