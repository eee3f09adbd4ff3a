"""Mistakes in commands that look as if they worked: shell syntax without a shell, curl without -f.

Owns what can be told from a command's text. Nothing here refuses a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from configschema.commandline import Command
from configschema.problems import Fault, Path
from configschema.recipe import Run
from configschema.schema import Model

SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ash", "fish", "cmd", "cmd.exe", "powershell"})
_OPERATORS = frozenset({"&&", "||", "|", ";", ">", ">>", "<", "2>&1", "&"})
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_SUBSTITUTION = re.compile(r"\$\([^)]*\)|`[^`]+`")
_VARIABLE = re.compile(r"\$(?:[A-Za-z_][A-Za-z0-9_]*|\{[A-Za-z_]+[:%#])")
_FAILS = re.compile(r"(?<!\S)(?:-[a-zA-Z]*f[a-zA-Z]*|--fail(?:-with-body)?)(?!\S)")
_LEVEL = re.compile(r"[\"']?level[\"']?\s*:")


def advise_on_commands(model: Model, path: Path) -> Iterator[Fault]:
    """Yield what is odd in a model's commands."""
    commands = {
        "cmd": model.cmd,
        "cmdStop": model.cmd_stop,
        "cmdSleep": model.cmd_sleep,
        "cmdWake": model.cmd_wake,
    }
    for name, command in commands.items():
        if command.open_quote and name in ("cmd", "cmdStop"):  # in the others it is a fault
            rest = "the last argument has all the rest"
            yield Fault((*path, name), f"a {command.open_quote} is begun and not ended: {rest}")
        for message in _oddities(command):
            yield Fault((*path, name), message)
    for step in (*model.recipe.sleep, *model.recipe.wake):
        if isinstance(step, Run):
            for message in _sleep_mistakes(step):
                yield Fault((*path, step.name), message)


def _oddities(command: Command) -> Iterator[str]:
    argv = command.argv
    if not argv:
        return
    if any(re.search(r"\s#\s", line) for line in command.text.split("\n")) and "#" in argv:
        yield "a '#' after arguments is no comment: it and what follows are arguments, too"
    if _ASSIGNMENT.match(argv[0]):
        yield f"'{argv[0].partition('=')[0]}=...' before a command needs a shell; use env"
    if _runs_a_shell(argv):
        return
    if sign := next((word for word in argv if word in _OPERATORS), None):
        yield f"'{sign}' is an argument here, as no shell runs it; write sh -c '...'"
    elif argv[0].endswith(";") or any(word.endswith(";") for word in argv[:-1]):
        yield "';' is part of an argument here, as no shell runs it; write sh -c '...'"
    if _SUBSTITUTION.search(command.text):
        yield "'$(...)' is no substitution here, as no shell runs it; write sh -c '...'"
    elif used := _VARIABLE.search(command.text):
        yield f"'{used[0]}' is not replaced, as no shell runs it; write ${{env.NAME}}"


def _runs_a_shell(argv: Sequence[str]) -> bool:
    """Whether any word is a shell: docker, ssh and env run what comes behind them."""
    return any(word.rpartition("/")[2] in SHELLS for word in argv)


def _sleep_mistakes(step: Run) -> Iterator[str]:
    text, argv = step.command.text, step.command.argv
    if "/sleep" in text and _LEVEL.search(text):
        yield "vLLM reads the level from the address only, so this is level 1; write /sleep?level=2"
    if argv[0].rpartition("/")[2] == "curl":
        plain = not any(_FAILS.fullmatch(word) for word in argv[1:])
    else:
        plain = _runs_a_shell(argv) and "curl" in text and not _FAILS.search(text)
    if plain:
        yield "curl without -f counts an HTTP error as success; add -f"
