"""Whether a model server outlives its command, as far as the command's words show.

Owns the programs that only start something, programs that never serve, and programs whose servers
are not their descendants. In doubt, a server is taken to live in its command.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from configschema.keys.containers import ENGINES, container_of, verb_of
from configschema.keys.simplecommands import (
    IDLE,
    Simple,
    commands_of,
    last_command,
    program_of,
    word_set,
    words_behind,
)

COMPOSES = frozenset({"docker-compose", "podman-compose"})
OUTSIDE = (
    ENGINES
    | COMPOSES
    | {"ctr", "crictl", "ssh", "autossh", "sshpass", "srun", "sbatch", "salloc", "kubectl", "oc"}
    | {"systemctl", "service", "systemd-run", "machinectl", "launchctl", "supervisorctl"}
    | {"flatpak-spawn", "distrobox", "distrobox-enter", "toolbox", "lxc", "incus", "wsl", "modal"}
)
"""Programs whose servers descend from another process: an engine's, or another machine's."""
LONG = 600  # seconds; a command that sleeps as long does not serve
_LOOP = re.compile(r"\b(?:while|until)\b")
_TIME = re.compile(r"(?:inf|infinity|([0-9.]+)([smhd]?))")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
CLIENTS = ENGINES | COMPOSES | {"ssh", "autossh", "srun", "kubectl"}
INTERPRETER = re.compile(r"(?:python|perl|ruby|node|sh$|bash$|dash$|zsh$)")
PLACES_OF_A_PROGRAM = 6  # words; a program's name after them is an argument of another program
_AROUND = word_set(
    "stop rm kill pull ps inspect login build image images network volume info version"
)
"""Verbs of an engine that leave no server behind, such as preparations for a start."""
_NEVER_SERVES = IDLE | {"sleep", "tail", "read", "date", "pause"}
_COMPOSE_VALUED = word_set(
    "-f --file -p --project-name --profile --env-file --project-directory --parallel "
    "--ansi --progress --context"
)
_KUBE_VALUED = word_set(
    "-n --namespace --context --kubeconfig --cluster --user -s --server --token"
)
_SYSTEMCTL_VALUED = word_set("-H --host -M --machine -t --type -p --property")


def lives_elsewhere(argv: Sequence[str], proxy: str, detached: bool | None) -> bool:
    """Whether a model server outlives its command.

    A command that only waits is not meant: that command stands for its server.

    Args:
        argv: the command; empty if nothing starts the server.
        proxy: the server's address.
        detached: what the file says about it, which wins.
    """
    if detached is not None:
        return detached
    if not argv:
        return bool(proxy)
    return _only_starts(argv)


def is_placeholder(argv: Sequence[str]) -> bool:
    """Whether a command never serves, but only waits, like ``sleep infinity``.

    A command that waits for a moment and ends has failed.
    """
    found = commands_of(argv)
    if not found or not all(map(_never_serves, found)):
        return False
    last = last_command(argv)
    return _LOOP.search(" ".join(argv)) is not None or (last is not None and _waits(last))


def leaves_the_tree(argv: Sequence[str]) -> bool:
    """Whether a command's server is not a descendant of the command's process."""
    found = commands_of(argv)
    if not found:  # a script that cannot be read
        words = (program_of(word) for argument in argv for word in argument.split())
        return not OUTSIDE.isdisjoint(words)
    return any(one.program in OUTSIDE and not _is_around(one) for one in found)


def names_an_outsider(argv: Sequence[str]) -> bool:
    """Whether a running process is such a program, or a script in place of one."""
    program, *words = (word.rpartition("/")[2] for word in (*argv[:PLACES_OF_A_PROGRAM], ""))
    if not INTERPRETER.match(program):
        return program in OUTSIDE
    return not CLIENTS.isdisjoint(words)


def compose_of(command: Simple) -> tuple[str, ...]:
    """Return the words of a compose command from its verb on; none for other commands."""
    words = verb_of(command)
    if words[:1] == ("compose",):
        words = words[1:]
    elif command.program in COMPOSES:
        words = command.words[1:]
    else:
        return ()
    return words[words_behind(words, _COMPOSE_VALUED) :]


def is_detaching(words: Sequence[str]) -> bool:
    """Whether the options of a compose verb make it end at once."""
    return any(word in ("-d", "--detach", "--wait") for word in words)


def _is_around(command: Simple) -> bool:
    return not _AROUND.isdisjoint(verb_of(command)[:1])


def _never_serves(command: Simple) -> bool:
    if command.program == "cat":
        return command.words[1:] in ((), ("-",), ("/dev/null",))
    return command.program in _NEVER_SERVES


def _waits(command: Simple) -> bool:
    """Whether a program that does not serve waits for long."""
    if command.program != "sleep":
        return command.program != "date"
    times = [_TIME.fullmatch(word) for word in command.words[1:]]
    return any(
        time is not None and (not time[1] or float(time[1]) * _UNITS[time[2]] >= LONG)
        for time in times
    )


def _only_starts(argv: Sequence[str]) -> bool:
    """Whether the last program of a command starts a server somewhere, and ends."""
    container, command = container_of(argv), last_command(argv)
    if container is not None or command is None:
        return container is not None and container.detached
    starts = _STARTERS.get(command.program)
    return starts is not None and starts(command)


def _engine(command: Simple) -> bool:
    verb, *rest = verb_of(command) or ("",)
    if verb == "compose":
        return _compose(command)
    attached = {"--attach", "--interactive", "-a", "-i", "-ai", "-ia"}
    return (verb == "start" and attached.isdisjoint(rest)) or verb in ("restart", "unpause")


def _compose(command: Simple) -> bool:
    verb, *rest = compose_of(command) or ("",)
    return (verb == "up" and is_detaching(rest)) or verb in ("start", "restart", "unpause")


def _systemctl(command: Simple) -> bool:
    words = command.words[1:]
    verb = words[words_behind(words, _SYSTEMCTL_VALUED) :][:1]
    return verb in (("start",), ("restart",), ("reload-or-restart",)) and "--wait" not in words


def _kubectl(command: Simple) -> bool:
    words = command.words[1:]
    return words[words_behind(words, _KUBE_VALUED) :][:1] in (("scale",), ("apply",), ("rollout",))


def _says(*verbs: str) -> Callable[[Simple], bool]:
    """Return the test whether a command has one of some verbs."""
    return lambda command: not frozenset(verbs).isdisjoint(command.words[1:])


_STARTERS: Mapping[str, Callable[[Simple], bool]] = {
    **dict.fromkeys(ENGINES, _engine),
    **dict.fromkeys(COMPOSES, _compose),
    "systemctl": _systemctl,
    "service": _says("start", "restart"),
    "sbatch": lambda command: {"-W", "--wait"}.isdisjoint(command.words),
    "launchctl": _says("start", "kickstart", "load", "bootstrap"),
    "supervisorctl": _says("start", "restart"),
    "kubectl": _kubectl,
    "oc": _kubectl,
}
