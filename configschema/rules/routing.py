"""Which models may run together, as the file says it: by groups, by a matrix, or by memory.

Owns which of these rules is in effect, at the older place or the newer one, and the checks of each.
The supervisor works out what follows for running models.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter

import attrs

from configschema.keys.fields import Gibibytes
from configschema.keys.schema import Config
from configschema.keys.sharing import DEFAULT_GROUP, Group, Matrix, MemoryRules
from configschema.rules.matrixlanguage import (
    Expression,
    Reference,
    WrongExpression,
    leaves,
    read,
    references,
)
from configschema.rules.matrixsets import Sets
from configschema.text.problems import Fault, Meant, Path

_SHORT_NAME = re.compile(r"[a-zA-Z0-9.-]{1,32}")
SETTINGS: Path = ("routing", "router", "settings")


@attrs.frozen
class Rules:
    """The rules in effect, and their place in the file."""

    groups: Mapping[str, Group] = attrs.field(factory=dict)
    matrix: Matrix | None = None
    memory: MemoryRules | None = None
    path: Path = ()


def rules_of(config: Config) -> Rules:
    """Return the rules in effect. Without any, all models are in one group."""
    router = config.routing.router
    if config.matrix is not None:
        return Rules(matrix=config.matrix, path=("matrix",))
    if config.groups:
        return Rules(groups=config.groups, path=("groups",))
    if router.use == "memory":
        return Rules(memory=router.settings.memory, path=(*SETTINGS, "memory"))
    if router.use == "matrix":
        return Rules(matrix=router.settings.matrix, path=(*SETTINGS, "matrix"))
    return Rules(groups=router.settings.groups, path=(*SETTINGS, "groups"))


def check_routing(config: Config) -> Iterator[Fault]:
    """Yield what is wrong with groups, matrix and priorities."""
    router = config.routing.router
    old = "groups" if config.groups else "matrix"
    has_old = bool(config.groups) or config.matrix is not None
    settings = router.settings
    if has_old and (router.use or settings.groups or settings.matrix is not None):
        message = f"routing.router and the older {old} cannot both be used: move {old} into it"
        yield Fault(("routing", "router"), message, also=(old,))
    if config.groups and config.matrix is not None:
        yield Fault(
            ("matrix",),
            "groups and matrix cannot both be used: remove one",
            also=("groups",),
        )
    rules = rules_of(config)
    if router.use == "matrix" and not has_old and rules.matrix is None:
        yield Fault(("routing", "router", "use"), "is matrix, but settings.matrix is missing")
    if rules.memory is not None and rules.memory.host_memory == Gibibytes(0):
        message = "leaves no memory for models: remove it, and they get what others leave free"
        yield Fault((*rules.path, "hostMemory"), message)
    if rules.matrix is not None:
        yield from _matrix(rules.matrix, rules.path, config)
    else:
        yield from _groups(rules.groups, rules.path, config)
    for name in config.routing.scheduler.settings.fifo.priority:
        if config.find(name) is None:
            path = ("routing", "scheduler", "settings", "fifo", "priority", name)
            yield no_such(path, "there is no model {}", name, config)


def no_such(path: Path, what: str, name: str, config: Config) -> Fault:
    """Report that no model has a name, and which name may have been meant."""
    owner = config.find(name)
    if owner is not None:
        return Fault(path, f"{what}, because it is an alias: write {{}}", (name, owner.id))
    return Fault(path, what, (name,), meant=Meant(name, config.models))


def _groups(groups: Mapping[str, Group], path: Path, config: Config) -> Iterator[Fault]:
    places: dict[str, Path] = {}
    for name, group in groups.items():
        for number, member in enumerate(group.members):
            if name == DEFAULT_GROUP:  # llama-swap makes this group itself
                continue
            place = (*path, name, "members", number)
            if member in places:
                yield Fault(place, "model {} is a member twice", (member,), also=places[member])
            elif member not in config.models:
                yield no_such(place, "there is no model {}", member, config)
            places.setdefault(member, place)


def _matrix(matrix: Matrix, path: Path, config: Config) -> Iterator[Fault]:
    if not matrix.sets:
        yield Fault((*path, "sets"), "a matrix needs at least one set")
    for short, name in matrix.vars.items():
        if not _SHORT_NAME.fullmatch(short):
            message = "a short name is 1 to 32 letters, digits, '.' or '-'"
            yield Fault((*path, "vars", short), message)
        if name not in config.models:
            yield no_such((*path, "vars", short), "there is no model {}", name, config)
    known = {**{name: name for name in config.models}, **matrix.vars}
    for name in matrix.evict_costs:
        if name not in known:
            yield Fault((*path, "evict_costs", name), "there is no such model or short name")
    trees: dict[str, Expression] = {}
    for name, text in matrix.sets.items():
        try:
            trees[name] = read(text)
        except WrongExpression as error:
            yield _at(error.at, error.message, text, (*path, "sets", name), *error.values)
    for name, tree in trees.items():
        yield from _names_in(tree, matrix, known, (*path, "sets", name))
    yield from _circles(trees, (*path, "sets"))


def _names_in(
    tree: Expression, matrix: Matrix, known: Mapping[str, str], path: Path
) -> Iterator[Fault]:
    text = matrix.sets[str(path[-1])]
    for leaf in leaves(tree):
        candidates = matrix.sets if isinstance(leaf, Reference) else known
        if leaf.name not in candidates:
            what = "set" if isinstance(leaf, Reference) else "model or short name"
            fault = _at(leaf.at, f"there is no {what} {{}}", text, path, leaf.name)
            yield attrs.evolve(fault, near=leaf.name, meant=Meant(leaf.name, candidates))


def _at(position: int, message: str, text: str, path: Path, *values: str) -> Fault:
    where = f"at character {position + 1} of {{}}"
    return Fault(path, f"{message} {where}", (*values, text), source=text, offset=position)


def _circles(trees: Mapping[str, Expression], path: Path) -> Iterator[Fault]:
    """Yield each cycle of references, at the first of its sets."""
    left = references(trees)
    while left:
        try:
            TopologicalSorter(left).prepare()
        except CycleError as error:
            circle = error.args[1][:-1]
            first = min(circle, key=list(trees).index)
            message = "this set refers to itself by way of {}"
            yield Fault((*path, first), message, (", ".join(circle),))
            left = {name: ahead for name, ahead in left.items() if name not in circle}
        else:
            return


def sets_of(matrix: Matrix) -> Sets | None:
    """Return the sets of a matrix, or None if they have faults."""
    try:
        trees = {name: read(text) for name, text in matrix.sets.items()}
    except WrongExpression:
        return None
    ahead = references(trees)
    if any(name not in trees for names in ahead.values() for name in names):
        return None
    return None if any(_circles(trees, ())) else Sets(trees, matrix.vars)


@attrs.frozen
class Company:
    """Which models may run together.

    Attributes:
        rules: the rules in effect.
        groups: for each model that is in a group, the group.
        partners: if a matrix is in effect, the models that each model may run with.
        places: for each model of a cluster, its allocation.
    """

    rules: Rules
    groups: Mapping[str, str]
    partners: Mapping[str, frozenset[str]]
    places: Mapping[str, str] = attrs.field(factory=dict)

    def home(self, model: str) -> str:
        """Return a key that is the same for all models to which the same rules apply."""
        return (
            model
            if self.rules.matrix or self.rules.memory
            else self.groups.get(model, DEFAULT_GROUP)
        )

    def may_meet(self, one: str, other: str) -> bool:
        """Whether two models may be awake at the same time."""
        if self.rules.memory or self.places.get(one, "") != self.places.get(other, ""):
            return True
        if self.rules.matrix:
            return other in self.partners.get(one, ())
        homes = [self.home(one), self.home(other)]
        groups = {**self.rules.groups, DEFAULT_GROUP: Group()}
        rules = [groups[home] for home in homes]
        if homes[0] == homes[1]:
            return not rules[0].swap
        return any(group.persistent or not group.exclusive for group in rules)


def company_of(config: Config) -> Company:
    """Return which models of a configuration may run together."""
    rules = rules_of(config)
    groups = {
        member: name
        for name, group in rules.groups.items()
        for member in group.members
        if name != DEFAULT_GROUP
    }
    sets = sets_of(rules.matrix) if rules.matrix else None
    places = {
        name: model.in_.allocation or f"({name})"
        for name, model in config.models.items()
        if model.in_ is not None
    }
    return Company(rules, groups, sets.partners() if sets else {}, places)
