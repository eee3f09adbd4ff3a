"""Warnings of servers that outlive their command: nothing ends them, or not in order.

Owns what can be told from compose, ssh, srun and other commands that start a server outside of the
daemon's processes. The options of a single container have theirs in `containeroptions`.
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
    """Yield what outlives a model's command without a ``cmdStop``."""
    command = last_command(model.cmd.argv)
    if model.in_ or model.cmd_stop or command is None or container_of(model.cmd.argv):
        return
    if model.is_elsewhere:
        message = f"cmd only starts the model server, and nothing ends it: {_way(command)}"
        yield Fault((*path, "cmd"), message)
    elif message := _foreground(command):
        yield Fault((*path, "cmd"), message)


def _way(command: Simple) -> str:
    """Return what to write, as far as the program tells."""
    end = _end_of_compose(command) if compose_of(command) else _ENDS.get(command.program, "")
    return f"write cmdStop, such as {end}" if end else "write cmdStop"


def _end_of_compose(command: Simple) -> str:
    """Return a compose command that ends what another one starts."""
    compose = "" if command.program.endswith("-compose") else " compose"
    return f"{command.program}{compose} stop NAME"


def _foreground(command: Simple) -> str:
    """Return what is wrong with a command that stays while its server runs; nothing if it ends."""
    if compose_of(command)[:1] == ("up",):
        what = "containers of compose outlive a client that is killed or crashes"
        return f"{what}: write cmdStop, such as {_end_of_compose(command)}"
    if command.program == "ssh" and _leaves_its_command(command.words[1:]):
        return "the server outlives ssh, which has no terminal there: add -tt, or write cmdStop"
    if command.program == "srun":
        way = "write cmdStop, such as scancel --signal=TERM --name NAME"
        return f"srun that is ended kills its server before it can end in order: {way}"
    return ""


def _leaves_its_command(words: tuple[str, ...]) -> bool:
    """Whether ssh runs a command without a terminal, whose end would be the command's end."""
    own = words_behind(words, _SSH_VALUED)
    options, command = words[:own], words[own + 1 :]
    letters = "".join(one[1:] for one in options if one[:1] == "-" and one.strip("-").isalpha())
    is_forced = any(one.lower().endswith("requesttty=force") for one in options)
    return bool(command) and letters.count("t") < 2 and not is_forced
