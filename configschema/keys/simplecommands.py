"""What a command finally runs: after sudo, env and nohup, and inside a script for a shell.

Owns the words of such wrappers and of a script, as far as they can be read. A script with more
grammar than simple commands and loops is not read. `elsewhere` knows what the programs mean.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import PurePath

import attrs

DEEPEST = 5  # shells within shells
LONGEST = 20_000  # characters of a script; a longer one is not read
KEPT = 4096  # answers: the same commands are read several times
SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ash", "ksh"})
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_SUBSTITUTION = re.compile(r"\$\([^()]*\)|`[^`]*`")
_OPERATORS = ";&|<>\n"
_KEYWORDS = frozenset(
    {"if", "then", "elif", "else", "fi", "while", "until", "do", "done", "!", "{", "}"}
)
_TOO_MUCH = frozenset({"for", "case", "function", "select", "esac", "[["})
IDLE = frozenset({":", "true", "wait", "exit", "return", "trap", "echo", "printf", "set"})
"""Commands of a shell that run no program. The script's purpose is in the other commands."""


@attrs.frozen
class Wrapper:
    """A program that runs the command after it.

    Attributes:
        valued: its options that take the next word.
        operands: the number of its own words before the command.
        is_kept: whether further commands to the same program need it, too.
    """

    valued: frozenset[str] = frozenset()
    operands: int = 0
    is_kept: bool = False


def word_set(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


WRAPPERS: Mapping[str, Wrapper] = {
    "sudo": Wrapper(word_set("-u -g -h -p -C -T -r -t -R -D -U --user --group"), is_kept=True),
    "doas": Wrapper(word_set("-u -C"), is_kept=True),
    "env": Wrapper(word_set("-u --unset -C --chdir"), is_kept=True),
    "exec": Wrapper(word_set("-a")),
    "command": Wrapper(),
    "time": Wrapper(),
    "nohup": Wrapper(),
    "setsid": Wrapper(),
    "nice": Wrapper(word_set("-n --adjustment")),
    "ionice": Wrapper(word_set("-c -n --class --classdata")),
    "chrt": Wrapper(operands=1),
    "taskset": Wrapper(operands=1),
    "numactl": Wrapper(word_set("-N -m -C -i -p")),
    "stdbuf": Wrapper(word_set("-i -o -e")),
    "timeout": Wrapper(word_set("-k -s --kill-after --signal"), operands=1),
    "tini": Wrapper(word_set("-p -e")),
    "dumb-init": Wrapper(),
    "systemd-inhibit": Wrapper(),
}
_SCOPE = Wrapper(word_set("-p --property -u --unit --slice --description --uid --gid -E --setenv"))


@attrs.frozen
class Simple:
    """One simple command: a program and its arguments.

    Attributes:
        words: the program and its arguments; empty if the command only sets variables.
        kept: words that a further command to the same program needs before it, such as ``sudo``.
    """

    words: tuple[str, ...]
    kept: tuple[str, ...] = ()

    @property
    def program(self) -> str:
        """The program's name, without its folder."""
        return program_of(self.words[0]) if self.words else ""


@lru_cache(KEPT)
def program_of(word: str) -> str:
    """Return a program's name without its folder and the ``.exe`` of Windows."""
    return PurePath(word).name.removesuffix(".exe")


def commands_of(argv: Sequence[str]) -> tuple[Simple, ...]:
    """Return a command's simple commands in order; none if it cannot be read."""
    return _commands(tuple(argv), 0)


@lru_cache(KEPT)
def _commands(argv: tuple[str, ...], depth: int) -> tuple[Simple, ...]:
    outer = _unwrapped(Simple(argv))
    script = _script_of(outer)
    if script is None:
        return (outer,) if outer.words else ()
    parts = _parts(script)
    if parts is None or depth >= DEEPEST:
        return ()
    found: list[Simple] = []
    for part in parts:
        inner = _commands(tuple(part), depth + 1)
        if part and not inner and not _ASSIGNMENT.match(part[0]):
            return ()
        found += (attrs.evolve(one, kept=(*outer.kept, *one.kept)) for one in inner)
    return tuple(found)


def last_command(argv: Sequence[str]) -> Simple | None:
    """Return the simple command that matters: the last one that runs a program."""
    found = commands_of(argv)
    return next((one for one in reversed(found) if one.program not in IDLE), None)


def words_behind(words: Sequence[str], valued: frozenset[str]) -> int:
    """Return how many words are options and their values, given the options that take one."""
    at = 0
    while at < len(words) and words[at].startswith("-") and words[at] != "-":
        if words[at] == "--":
            return at + 1
        at += 2 if words[at] in valued else 1
    return min(at, len(words))


def _unwrapped(command: Simple) -> Simple:
    """Return a command without its wrappers. Wrappers that later commands need are in `kept`."""
    words, kept = command.words, command.kept
    while words:
        name = program_of(words[0])
        if _ASSIGNMENT.match(words[0]):
            words = ("env", *words)
            name = "env"
        wrapper = WRAPPERS.get(name)
        if name == "systemd-run" and "--scope" in words:
            wrapper = _SCOPE
        if wrapper is None:
            break
        own = _length(words, wrapper)
        kept += words[:own] if wrapper.is_kept else ()
        words = words[own:]
    return Simple(words, kept)


def _length(words: Sequence[str], wrapper: Wrapper) -> int:
    """Return how many words of a wrapper are before the command."""
    at = 1 + words_behind(words[1:], wrapper.valued)
    while wrapper.is_kept and at < len(words) and _ASSIGNMENT.match(words[at]):
        at += 1
    return min(at + wrapper.operands, len(words))


def _script_of(command: Simple) -> str | None:
    """Return the script that a command passes to a shell; None if there is none."""
    words = command.words[1:] if command.program == "busybox" else command.words
    if not words or program_of(words[0]) not in SHELLS:
        return None
    rest = iter(words[1:])
    for word in rest:
        if not word.startswith(("-", "+")):
            return None  # a file
        if "c" in word and not word.startswith("--"):
            return next(rest, "")
        if word.endswith("o"):
            next(rest, "")
    return None


def _parts(script: str) -> list[list[str]] | None:
    """Return the words of each simple command of a script; None if the script has other parts."""
    if len(script) > LONGEST:
        return None
    lines = (line for line in script.splitlines() if not line.lstrip().startswith("#"))
    text = _SUBSTITUTION.sub("$_", "\n".join(lines).replace("\\\n", " "))
    try:
        parts = list(_split(text))
    except ValueError:  # a quote is not closed
        return None
    return None if any(map(_is_more, parts)) else parts


def _is_more(part: Sequence[str]) -> bool:
    """Whether this is not a simple command, but a loop over words, a subshell, a function."""
    return part[0] in _TOO_MUCH or part[0][:1] == "(" or any(w.endswith("()") for w in part)


def _split(text: str) -> Iterator[list[str]]:
    """Yield the words of each simple command, without redirections; of a pipe only the first."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=_OPERATORS)
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t\r", True, ""
    part: list[str] = []
    is_piped = is_target = False
    for token in lexer:
        is_operator = bool(token) and not token.strip(_OPERATORS)
        if is_operator and ("<" in token or ">" in token):
            is_target = True
        elif is_operator:
            if part and not is_piped:
                yield part
            part, is_target = [], False
            is_piped = token in ("|", "|&")
        elif is_target:
            is_target = False
        elif part or (token and token not in _KEYWORDS):
            part.append(token)
    if part and not is_piped:
        yield part
