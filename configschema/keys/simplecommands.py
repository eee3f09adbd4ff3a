"""What a command runs in the end: behind sudo, env and nohup, and in a script given to a shell.

Owns the words of such wrappers and of a script, as far as they can be read: a script with more
grammar than simple commands and loops is given up. What the programs mean is in `elsewhere`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import PurePath

import attrs

DEEPEST = 5  # shells within shells
LONGEST = 20_000  # characters of a script; a longer one is given up
KEPT = 4096  # answers: each command is asked about several times
SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ash", "ksh"})
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_SUBSTITUTION = re.compile(r"\$\([^()]*\)|`[^`]*`")
_OPERATORS = ";&|<>\n"
_KEYWORDS = frozenset(
    {"if", "then", "elif", "else", "fi", "while", "until", "do", "done", "!", "{", "}"}
)
_TOO_MUCH = frozenset({"for", "case", "function", "select", "esac", "[["})
IDLE = frozenset({":", "true", "wait", "exit", "return", "trap", "echo", "printf", "set"})
"""Commands of a shell that run no program: what is behind them is what the script is for."""


@attrs.frozen
class Wrapper:
    """A program that runs the command behind it.

    Attributes:
        valued: its options that take the next word.
        operands: words of its own before the command.
        is_kept: whether another command to the same program needs it, too.
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
        words: the program first; empty if nothing but variables is set.
        kept: what another command to the same program must have before it, such as ``sudo``.
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
    """Return the simple commands a command comes down to, in order; none if it cannot be read."""
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
    """Return the simple command that a command is for: the last one that runs a program."""
    found = commands_of(argv)
    return next((one for one in reversed(found) if one.program not in IDLE), None)


def words_behind(words: Sequence[str], valued: frozenset[str]) -> int:
    """Return how many words are options, of which some take the next word."""
    at = 0
    while at < len(words) and words[at].startswith("-") and words[at] != "-":
        if words[at] == "--":
            return at + 1
        at += 2 if words[at] in valued else 1
    return min(at, len(words))


def _unwrapped(command: Simple) -> Simple:
    """Return a command without the wrappers before it; those to be kept are in `kept`."""
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
    """Return how many words a wrapper has before the command."""
    at = 1 + words_behind(words[1:], wrapper.valued)
    while wrapper.is_kept and at < len(words) and _ASSIGNMENT.match(words[at]):
        at += 1
    return min(at + wrapper.operands, len(words))


def _script_of(command: Simple) -> str | None:
    """Return the script that a command gives to a shell; None if it gives none."""
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
    """Return the words of each simple command of a script; None if it has more than those."""
    if len(script) > LONGEST:
        return None
    lines = (line for line in script.splitlines() if not line.lstrip().startswith("#"))
    text = _SUBSTITUTION.sub("$_", "\n".join(lines).replace("\\\n", " "))
    try:
        parts = list(_split(text))
    except ValueError:  # a quote is left open
        return None
    return None if any(map(_is_more, parts)) else parts


def _is_more(part: Sequence[str]) -> bool:
    """Whether it is more than a simple command: a loop over words, a subshell, a function."""
    return part[0] in _TOO_MUCH or part[0][:1] == "(" or any(w.endswith("()") for w in part)


def _split(text: str) -> Iterator[list[str]]:
    """Yield the words of each simple command; of a pipe the first one's, without redirections."""
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
