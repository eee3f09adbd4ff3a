"""Mistakes in commands that seem to work: shell syntax without a shell, curl without -f.

Owns what a command's text shows. Nothing here refuses a file. Quoted text is never suspected.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from configschema.keys.commandline import Command
from configschema.keys.elsewhere import leaves_the_tree
from configschema.keys.recipe import Call, Checkpoint, Step
from configschema.keys.schema import Model
from configschema.making.declarations import BUILT_IN
from configschema.rules.addresses import local_port
from configschema.rules.checks import written_steps
from configschema.text.problems import Fault, Path

NO_SHELL = "because no shell runs this command"
_CURLY = re.compile("[\u2018\u2019\u201c\u201d\u00ab\u00bb]")
_SUSPICIOUS = re.compile(r"[#&|;<>$~\\=]")  # every oddity has at least one of these
_OPERATOR = re.compile(r"&&|\|\||\||;|&|<|[0-9&]?>{1,2}(?:&?[0-9])?")
_REDIRECTION = re.compile(r"[0-9&]?>{1,2}\S+|\|\S+")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_VARIABLE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)|\$\{([A-Za-z_][A-Za-z0-9_]*)[:%#/]")
_QUOTED = re.compile(r"'[^']*'?|\"(?:[^\"\\]|\\.)*\"?", re.DOTALL)
_KNOWN_LATER = re.compile(r"\$\{(?:PID|HOST|PORT)\}")
_WINDOWS_PATH = re.compile(r"(?<![A-Za-z])[A-Za-z]:\\\w")
_FAIL_OPTION = re.compile(r"-[a-zA-Z]*f[a-zA-Z]*|--fail(?:-with-body)?")
_CURL = re.compile(r"(?:.*[/\\])?curl(?:\.exe)?")
_SHELL_ENDS = re.compile(r"&&|\|\||[;|\n&]")
_NAMES_A_MODEL = re.compile(r"model[\\\"']*\s*:")
_LEVEL = re.compile(r"level[\\\"']*\s*:\s*[\\\"']*([0-9]+)")


def advise_on_commands(model: Model, path: Path) -> Iterator[Fault]:
    """Yield what is suspicious in a model's commands and in its requests for sleep."""
    commands = {
        "cmd": model.cmd,
        "cmdStop": model.cmd_stop,
        "cmdSleep": model.cmd_sleep,
        "cmdWake": model.cmd_wake,
    }
    for name, command in commands.items():
        if command.open_quote and name in ("cmd", "cmdStop"):  # `rules/checks` refuses the others
            rest = "the last argument takes all the text after it"
            yield Fault((*path, name), f"the quote {command.open_quote} is not closed: {rest}")
        for message, *values in _oddities(command):
            yield Fault((*path, name), message, tuple(values), source=command.text)
    for name, command in (("cmdSleep", model.cmd_sleep), ("cmdWake", model.cmd_wake)):
        yield from _curl_without_f(command, (*path, name))
    for place, command in _commands_of_steps(model):
        for message, *values in _oddities(command):
            yield Fault((*path, *place), message, tuple(values), source=command.text)
        yield from _curl_without_f(command, (*path, *place))
    yield from _levels(model.recipe.sleep, path)
    yield from _another_port(model, path)


def _another_port(model: Model, path: Path) -> Iterator[Fault]:
    """Yield a port in the command that is not the port of proxy."""
    wanted = None if leaves_the_tree(model.cmd.argv) else local_port(model.proxy)
    for option, value in zip(model.cmd.argv, model.cmd.argv[1:], strict=False):
        if option == "--port" and value.isdecimal() and wanted and int(value) != wanted:
            message = "cmd listens on port {}, but proxy leads to port {}: use the same port"
            yield Fault((*path, "proxy"), message, (int(value), wanted))


def _commands_of_steps(model: Model) -> Iterator[tuple[Path, Command]]:
    for place, steps in written_steps(model).items():
        for number, one in enumerate(steps):
            path: Path = (*place, number, "cmd")
            yield path, one.cmd


def _curl_without_f(command: Command, path: Path) -> Iterator[Fault]:
    if any(not _fails_on_errors(call) for call in _curls(command)):
        yield Fault(path, "curl without -f reports success even for HTTP errors: add -f")


def _oddities(command: Command) -> Iterator[tuple[str, ...]]:
    """Yield a message for each oddity, with its values."""
    if found := _CURLY.search(command.text):
        yield ("{} does not quote anything in a command: write a straight quote", found[0])
    if not command.argv or not _SUSPICIOUS.search(command.text):
        return
    first, *_ = command.bare
    if "#" in command.bare[1:]:
        yield ("a '#' after arguments begins no comment: it and the words after it are arguments",)
    if _ASSIGNMENT.match(first):
        yield (
            "setting {} before a command needs a shell: use env",
            first.partition("=")[0],
        )
    sign = next((word for word in command.bare if _is_operator(word)), None)
    if sign:
        yield (f"{{}} is an argument here, {NO_SHELL}: write sh -c '...'", sign)
    elif any(word.endswith(";") for word in command.bare[:-1]):
        yield (f"';' is part of an argument here, {NO_SHELL}: write sh -c '...'",)
    if "${" in _KNOWN_LATER.sub("", command.text) and not _VARIABLE.search(command.text):
        yield ("a '${' here begins no macro: a macro's name has letters, digits, '_' and '-' only",)
    if any("$(" in word for word in command.bare):
        yield (f"'$(...)' is not replaced here, {NO_SHELL}: write sh -c '...'",)
    elif used := next(filter(None, map(_VARIABLE.search, command.bare)), None):
        name = used[1] or used[2]
        instead = name if name in BUILT_IN else "env.NAME"
        yield (f"{{}} is not replaced, {NO_SHELL}: write ${{{instead}}}", used[0])
    if home := next((word for word in command.bare if word.startswith("~/")), None):
        yield (f"{{}} is not replaced, {NO_SHELL}: write ${{env.HOME}}", home)
    if found := _WINDOWS_PATH.search(_QUOTED.sub("''", command.text)):
        yield ("a '\\' outside quotes is dropped, as in {}: put the path into '...'", found[0])


def _is_operator(word: str) -> bool:
    return bool(_OPERATOR.fullmatch(word) or _REDIRECTION.fullmatch(word))


def _curls(command: Command) -> Iterator[Sequence[str]]:
    """Yield the arguments of each call of curl, including calls in a script for a shell."""
    if "curl" not in command.text:
        return
    scripts = [argument for argument in command.argv if " " in argument]
    calls = [list(command.argv), *(part.split() for s in scripts for part in _SHELL_ENDS.split(s))]
    for words in calls:
        for number, word in enumerate(words):
            if _CURL.fullmatch(word):
                yield words[number + 1 :]


def _fails_on_errors(arguments: Sequence[str]) -> bool:
    return any(_FAIL_OPTION.fullmatch(argument) for argument in arguments)


def _levels(steps: Sequence[Step], path: Path) -> Iterator[Fault]:
    """Yield a level of sleep that is in a request's body: vLLM reads it from the address only.

    A body that names a model is for another program, such as Ray Serve.
    """
    for number, step in enumerate(steps):
        if isinstance(step, Checkpoint):
            continue
        text = f"{step.url} {step.body}" if isinstance(step, Call) else step.command.text
        place: Path = ("sleepEndpoints", number) if isinstance(step, Call) else ("cmdSleep",)
        level = _LEVEL.search(text)
        is_vllms = "/sleep" in text and not _NAMES_A_MODEL.search(text)
        if level and is_vllms and "level=" not in text:
            message = "vLLM ignores a level in the body, and uses level 1: write {}"
            yield Fault((*path, *place), message, (f"/sleep?level={level[1]}",))
