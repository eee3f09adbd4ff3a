"""Warnings about containers: settings that do not reach them, and what keeps them from ending.

Owns what the options of ``docker run`` and its like show. `serversoutside` handles compose and
other ways to start servers outside the daemon's processes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

from configschema.keys.containers import Container, container_of, verb_of
from configschema.keys.presets import PRESETS
from configschema.keys.schema import Config, Model
from configschema.keys.simplecommands import commands_of, program_of
from configschema.text.problems import Fault, Path, and_others

INITS = frozenset({"tini", "dumb-init", "catatonit", "docker-init", "s6-svscan"})
_OF_THE_CLIENT = re.compile(
    r"(DOCKER|CONTAINERS?|PODMAN|NERDCTL|BUILDAH|BUILDKIT|XDG|DBUS|SSH|LC)_.*"
    r"|PATH|HOME|USER|LANG|TMPDIR|REGISTRY_AUTH_FILE|(?i:https?_proxy|no_proxy)"
)


def advise_on_container(model: Model, path: Path) -> Iterator[Fault]:
    """Yield what is suspicious in the options of a model's container."""
    container = container_of(model.cmd.argv)
    if container is None:
        return
    yield from _detached(model, container, path)
    yield from _environment(model, container, path)
    is_found = container.name or container.cidfile or model.cmd_stop
    if not is_found and not container.detached:
        message = "without --name llamadoze cannot find the container after its client crashes"
        yield Fault((*path, "cmd"), f"{message}: add --name, and --rm")
    elif _stays_under_its_name(model, container):
        message = "container {} remains after it ends, so the next start fails: add --rm"
        yield Fault((*path, "cmd"), message, (container.name,), source=model.cmd.text)


def advise_on_inits(config: Config) -> Iterator[Fault]:
    """Yield one warning for all containers that have no init."""
    without = [model.id for model in config.models.values() if _lacks_init(model)]
    if without:
        what = "without --init the server is PID 1 of its container, which ignores signals that it"
        message = f"{what} does not handle, and leaves zombies: add --init"
        yield Fault(("models", without[0], "cmd"), message + and_others(len(without) - 1))


def is_set_in(container: Container, variable: str, given: str) -> bool:
    """Whether a container has a variable, and is not known to give it another value.

    Args:
        container: the container that the command describes.
        variable: the variable as ``NAME=value``.
        given: the value that the engine's client has.
    """
    name, _, wanted = variable.partition("=")
    if container.has_env_file or any(variable in word for word in container.command):
        return True
    pattern = next((one for one in container.variables if fnmatchcase(name, one)), None)
    if pattern is None:
        return False
    value = container.variables[pattern]
    return (given if value is None else value).lower() in {wanted.lower(), "true", "yes", "on"}


def _detached(model: Model, container: Container, path: Path) -> Iterator[Fault]:
    """Yield what follows from ``-d``: the container outlives its command."""
    if not container.detached:
        return
    if model.detached is False:
        message = "cmd has -d (detach), so the container outlives it: remove -d or detached: false"
        yield Fault((*path, "detached"), message)
    elif not (container.name or container.cidfile or model.cmd_stop):
        message = "with -d (detach) llamadoze cannot end the container: remove -d, or add --name"
        yield Fault((*path, "cmd"), message)
    elif model.detached is None:
        end = "cmdStop" if model.cmd_stop else "its name" if container.name else "its id"
        what = f"with -d (detach) the container outlives cmd, and llamadoze ends it by {end}"
        message = f"{what}: remove -d, or confirm with detached: true"
        yield Fault((*path, "cmd"), message)


def _environment(model: Model, container: Container, path: Path) -> Iterator[Fault]:
    """Yield the variables that reach only the engine's client."""
    if container.has_env_file:
        return
    of_the_preset = PRESETS[model.sleep].needs.env if model.sleep else ()
    told = {variable.partition("=")[0] for variable in of_the_preset}
    names = [entry.partition("=")[0] for entry in model.env if "=" in entry.lstrip("=")]
    lost = [
        name
        for name in dict.fromkeys(names)
        if name not in told
        and not _OF_THE_CLIENT.fullmatch(name)
        and not any(fnmatchcase(name, one) for one in container.variables)
        and f"${name}" not in model.cmd.text
        and f"${{{name}" not in model.cmd.text
    ]
    if lost:
        options = " ".join(["-e {}"] * len(lost))
        message = f"reaches the container's client, but not the container: add {options} to cmd"
        yield Fault((*path, "env"), message, tuple(lost), source="\n".join(model.env))


def _stays_under_its_name(model: Model, container: Container) -> bool:
    """Whether a container keeps its name after it ends, because nothing removes it."""
    fixed = container.name and "$" not in container.name
    if not fixed or container.is_removed:
        return False
    commands = (*commands_of(model.cmd.argv), *commands_of(model.cmd_stop.argv))
    return not any(verb_of(one)[:1] == ("rm",) for one in commands)


def _lacks_init(model: Model) -> bool:
    container = container_of(model.cmd.argv)
    if container is None or container.has_init:
        return False
    return not INITS & {program_of(word) for word in container.command[:1]}
