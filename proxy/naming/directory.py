"""What a name stands for: a local model, or a peer's model. Pure functions of a configuration.

Owns the lookup. `selectors` chooses the target of a selector. `resolving` replaces names by the
profile in use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import attrs

from configschema import Config, Model, Peer


@attrs.frozen
class Local:
    """A local model; `name` is its name in the request."""

    model: Model
    name: str

    @property
    def id(self) -> str:
        """The model's name in logs and metrics."""
        return self.model.id


@attrs.frozen
class Remote:
    """A peer's model; `name` is its name at the peer."""

    peer_id: str
    peer: Peer
    name: str

    @property
    def id(self) -> str:
        """The model's name in logs and metrics."""
        return f"{self.peer_id}/{self.name}"


Target = Local | Remote


@attrs.frozen
class Directory:
    """The names of one configuration."""

    config: Config
    _known: dict[str, Target] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        ours = {name: Local(model, name) for name, model in _names_of_ours(self.config)}
        # A local name takes precedence over a peer's, and a local id over an alias.
        object.__setattr__(self, "_known", {**dict(_peers_models(self.config)), **ours})

    def find(self, name: str) -> Target | None:
        """Return what a name stands for: a model or alias first, then a peer's model."""
        return self._known.get(name)

    def names(self) -> Iterator[str]:
        """Yield all ids, aliases and names of peers' models."""
        yield from self._known

    def remote(self) -> Iterator[Remote]:
        """Yield each of the peers' models once."""
        for peer_id, peer in self.config.peers.items():
            for name in peer.models:
                yield Remote(peer_id, peer, name)


def _names_of_ours(config: Config) -> Iterator[tuple[str, Model]]:
    """Yield aliases, then ids."""
    for model in config.models.values():
        yield from ((name, model) for name in model.other_names)
    yield from config.models.items()


def _peers_models(config: Config) -> Iterator[tuple[str, Remote]]:
    """Yield full names, and the bare name if only one peer has it (llama-swap's rule)."""
    holders = Counter(name for peer in config.peers.values() for name in set(peer.models))
    for peer_id, peer in config.peers.items():
        for name in peer.models:
            remote = Remote(peer_id, peer, name)
            if holders[name] == 1:
                yield name, remote
            yield f"{peer_id}/{name}", remote
