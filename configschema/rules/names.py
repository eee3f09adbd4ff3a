"""The one namespace of models, aliases, peers' models, selectors and profiles.

Owns that each name means one thing, and that the target of each name exists.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from configschema.keys.schema import Config
from configschema.keys.sections import Selector
from configschema.keys.sharing import DEFAULT_GROUP
from configschema.rules.routing import no_such, rules_of, sets_of
from configschema.text.problems import Fault, Meant, Path

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def check_names(config: Config) -> Iterator[Fault]:
    """Yield each name that is given twice, and each name whose target does not exist."""
    yield from _unwritable(config)
    yield from _aliases(config)
    yield from _names_by_id(config)
    yield from _peers(config)
    for name, selector in config.selectors.items():
        yield from _selector(name, selector, config)
    yield from _profiles(config)
    profile = config.hooks.on_startup.profile
    if profile and profile not in config.profiles:
        place = ("hooks", "on_startup", "profile")
        meant = Meant(profile, config.profiles)
        yield Fault(place, "there is no profile {}", (profile,), meant=meant)


def _unwritable(config: Config) -> Iterator[Fault]:
    """Yield names that cannot be part of a path or a log line as they are."""
    what = "a name cannot have a line break or another control character"
    for name, model in config.models.items():
        if _CONTROL.search(name):
            yield Fault(("models", name), what)
        for number, alias in enumerate(model.aliases):
            if _CONTROL.search(alias):
                yield Fault(("models", name, "aliases", number), what)


def _profiles(config: Config) -> Iterator[Fault]:
    for name, profile in config.profiles.items():
        path = ("profiles", name, "pins")
        if not name.strip():
            yield Fault(("profiles", name), "a profile needs a name")
        if not profile.pins:
            yield Fault(path, "a profile needs at least one pin")
        for pin, target in profile.pins.items():
            if not pin.strip():
                yield Fault((*path, pin), "a pin needs a name")
            if target and not _is_known(target, config):
                yield _nobody(
                    (*path, pin), "there is no model, alias or selector {}", target, config
                )


def _is_known(name: str, config: Config) -> bool:
    """Whether a name is that of a model, an alias, a peer's model or a selector."""
    return config.find(name) is not None or name in config.selectors or _is_peers(name, config)


def _full_names(config: Config) -> dict[str, Path]:
    """Return the full names of peers' models (``peer/model``) with their places."""
    return {
        f"{peer_name}/{model}": ("peers", peer_name, "models", number)
        for peer_name, peer in config.peers.items()
        for number, model in enumerate(peer.models)
    }


def _nobody(path: Path, what: str, name: str, config: Config) -> Fault:
    """Report that no model has a name, or that models of several peers have it."""
    holders = [peer_name for peer_name, peer in config.peers.items() if name in peer.models]
    if len(holders) < 2:
        return no_such(path, what, name, config)
    message = "several peers have a model {}: write its full name with the peer, such as {}"
    return Fault(path, message, (name, f"{holders[0]}/{name}"))


def _is_peers(name: str, config: Config) -> bool:
    holders = sum(name in peer.models for peer in config.peers.values())
    return holders == 1 or name in _full_names(config)


def _alias_places(config: Config) -> dict[str, Path]:
    """Return the first place of each alias. Names of ``setParamsByID`` are aliases, too."""
    places: dict[str, Path] = {}
    for name, model in config.models.items():
        for number, alias in enumerate(model.aliases):
            places.setdefault(alias, ("models", name, "aliases", number))
    for name, model in config.models.items():
        for by_id in model.filters.set_params_by_id:
            if by_id != name:
                places.setdefault(by_id, ("models", name, "filters", "setParamsByID", by_id))
    return places


def _aliases(config: Config) -> Iterator[Fault]:
    places: dict[str, Path] = {}
    for name, model in config.models.items():
        for number, alias in enumerate(model.aliases):
            path = ("models", name, "aliases", number)
            if alias in places:
                owner = places[alias][1]
                message = "alias {} is already an alias of {}"
                yield Fault(path, message, (alias, owner), also=places[alias])
            places.setdefault(alias, path)


def _names_by_id(config: Config) -> Iterator[Fault]:
    places = _alias_places(config)
    for name, model in config.models.items():
        for by_id in model.filters.set_params_by_id:
            path = ("models", name, "filters", "setParamsByID", by_id)
            if by_id == name:
                continue
            if by_id in config.models:
                message = "would be an alias of this model, but is the id of another one"
                yield Fault(path, message, also=("models", by_id))
            elif places[by_id][1] != name:
                message = "would be an alias of this model, but {} has that alias already"
                yield Fault(path, message, (places[by_id][1],), also=places[by_id])


def _peers(config: Config) -> Iterator[Fault]:
    aliases, seen = _alias_places(config), dict[str, tuple[str, Path]]()
    for peer_name, peer in config.peers.items():
        if not peer.models:
            yield Fault(("peers", peer_name, "models"), "a peer needs at least one model")
        for number, model in enumerate(peer.models):
            full, path = f"{peer_name}/{model}", ("peers", peer_name, "models", number)
            owner, place = seen.setdefault(full, (peer_name, path))
            if owner != peer_name:
                yield Fault(
                    path, "a model of another peer has the full name {}, too", (full,), also=place
                )
            if full in config.models:
                message = "its full name {} is also a model's id"
                yield Fault(path, message, (full,), also=("models", full))
            elif full in aliases:
                yield Fault(path, "its full name {} is also an alias", (full,), also=aliases[full])
            for profile_name, profile in config.profiles.items():
                if full in profile.pins:
                    pin = ("profiles", profile_name, "pins", full)
                    yield Fault(path, "its full name {} is also a pin", (full,), also=pin)


def _selector(name: str, selector: Selector, config: Config) -> Iterator[Fault]:
    path = ("selectors", name)
    aliases, full = _alias_places(config), _full_names(config)
    if not name.strip():
        yield Fault(path, "a selector needs a name")
    for taken, what in ((config.models, "a model's id"), (aliases, "an alias"), (full, "a peer's")):
        if name in taken:
            place = ("models", name) if taken is config.models else {**aliases, **full}[name]
            yield Fault(path, f"the name is also {what}", also=place)
    if selector.strategy is None:
        yield Fault((*path, "strategy"), "is required: warm, pin or spillover")
    if not selector.targets:
        yield Fault((*path, "targets"), "needs at least one model")
    for number, target in enumerate(selector.targets):
        place = (*path, "targets", number)
        local = config.find(target)
        if target in config.selectors:
            yield Fault(place, "{} is a selector, too: name its targets instead", (target,))
        elif local is None and not _is_peers(target, config):
            yield _nobody(place, "there is no model {}", target, config)
        elif local is None and selector.strategy == "warm":
            yield Fault(
                place,
                "{} is a peer's model, but strategy warm can choose local models only",
                (target,),
            )
    if selector.strategy == "spillover":
        yield from _spillover(path, selector, config)


def _spillover(path: Path, selector: Selector, config: Config) -> Iterator[Fault]:
    """Check that the targets can run at the same time, because they share the load."""
    found = [model.id for target in selector.targets if (model := config.find(target))]
    for twice in (name for name, times in Counter(found).items() if times > 1):
        yield Fault((*path, "targets"), "model {} is a target twice", (twice,))
    rules = rules_of(config)
    if len(set(found)) < 2:
        return
    if rules.matrix is not None:
        sets = sets_of(rules.matrix)
        if sets and not sets.allow_together(frozenset(found)):
            yield Fault(
                (*path, "targets"),
                "spillover needs targets that run together, but no set of the matrix allows it",
            )
        return
    together = any(
        not group.swap and set(found) <= set(group.members)
        for name, group in rules.groups.items()
        if name != DEFAULT_GROUP
    )
    if not together:
        message = (
            "spillover needs targets that run together: put them into one group with swap: false"
        )
        yield Fault((*path, "targets"), message)
