"""Warnings about servers that outlive their command, so that nothing ends them properly.

Owns what compose, ssh, srun and other commands show that start a server outside the daemon's
processes. `containeroptions` handles the options of a single container.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from configschema.keys.containers import container_of
from configschema.keys.elsewhere import compose_of
from configschema.keys.schema import Model
from configschema.keys.simplecommands import Simple, last_command, word_set, words_behind
from configschema.text.problems import Fault, Path

_ENDS: Mapping[str, str] = {
    "docker": "docker stop NAME",
    "podman": "podman stop NAME",
    "nerdctl": "nerdctl stop NAME",
    "systemctl": "systemctl stop UNIT",
    "service": "service NAME stop",
    "sbatch": "scancel --name NAME",
    "launchctl": "launchctl stop NAME",
    "supervisorctl": "supervisorctl stop NAME",
    "kubectl": "kubectl scale --replicas 0 NAME",
    "oc": "oc scale --replicas 0 NAME",
}
_SSH_VALUED = word_set("-B -b -c -D -E -e -F -I -i -J -L -l -m -O -o -p -Q -R -S -W -w")


def advise_on_servers_outside(model: Model, path: Path) -> Iterator[Fault]:
    """Yield servers that outlive a model's command and have no ``cmdStop``."""
    command = last_command(model.cmd.argv)
    if model.in_ or model.cmd_stop or command is None or container_of(model.cmd.argv):
        return
    if model.is_elsewhere:
        message = f"cmd only starts the model server, so llamadoze cannot end it: {_way(command)}"
        yield Fault((*path, "cmd"), message)
    elif message := _foreground(command):
        yield Fault((*path, "cmd"), message)


def _way(command: Simple) -> str:
    """Return what to write, with an example if the program is known."""
    end = _end_of_compose(command) if compose_of(command) else _ENDS.get(command.program, "")
    return f"write cmdStop, such as {end}" if end else "write cmdStop"


def _end_of_compose(command: Simple) -> str:
    """Return the compose command that ends what a given one starts."""
    compose = "" if command.program.endswith("-compose") else " compose"
    return f"{command.program}{compose} stop NAME"


def _foreground(command: Simple) -> str:
    """Return what is wrong with a command that runs as long as its server; empty if nothing."""
    if compose_of(command)[:1] == ("up",):
        what = "the containers of compose outlive a client that crashes or is killed"
        return f"{what}: write cmdStop, such as {_end_of_compose(command)}"
    if command.program == "ssh" and _leaves_its_command(command.words[1:]):
        return "the server outlives ssh, because it has no terminal: add -tt, or write cmdStop"
    if command.program == "srun":
        way = "write cmdStop, such as scancel --signal=TERM --name NAME"
        return f"ending srun kills its server before the server can end in order: {way}"
    return ""


def _leaves_its_command(words: tuple[str, ...]) -> bool:
    """Whether ssh runs a command without a terminal, so that the command outlives ssh."""
    own = words_behind(words, _SSH_VALUED)
    options, command = words[:own], words[own + 1 :]
    letters = "".join(one[1:] for one in options if one[:1] == "-" and one.strip("-").isalpha())
    is_forced = any(one.lower().endswith("requesttty=force") for one in options)
    return bool(command) and letters.count("t") < 2 and not is_forced
