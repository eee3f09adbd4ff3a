"""Warnings about names that a model server does not know: vLLM answers 404 to unknown names.

Owns what vLLM's command shows. Other servers answer to any name, or their names are not known here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from configschema.keys.schema import Model
from configschema.text.problems import Fault, Path

MODULE = "vllm.entrypoints.openai.api_server"
SERVE = ("vllm", "serve")
IMAGES = ("vllm/vllm-openai", "docker.io/vllm/vllm-openai")
SERVED = ("--served-model-name", "--served_model_name")


def advise_on_names(model: Model, path: Path) -> Iterator[Fault]:
    """Yield the first of a model's names that vLLM does not know."""
    if model.use_model_name or not (known := _served_by_vllm(_words(model.cmd.argv))):
        return
    for name in (model.id, *model.other_names):
        if name not in known:
            way = f"add --served-model-name {name}, or set useModelName"
            message = f"vLLM serves {{}} and answers 404 to {{}}: {way}"
            yield Fault((*path, "cmd"), message, (known[0], name))
            return


def _words(argv: Sequence[str]) -> list[str]:
    """Return the words of a command, including those of a script for a shell."""
    return [word for argument in argv for word in argument.split()]


def _served_by_vllm(words: list[str]) -> list[str]:
    """Return the names that vLLM answers to; none for another server, or if they are unknown."""
    names = [word.rpartition("/")[2] for word in words]
    if MODULE in words:
        start = words.index(MODULE)
    elif (pair := next((at for at, two in enumerate(pairwise(names)) if two == SERVE), -1)) >= 0:
        start = pair + 1
    elif image := next((word for word in words if word.startswith(IMAGES)), ""):
        start = words.index(image)
    else:
        return []
    options = [part for word in words[start + 1 :] for part in _split(word)]
    served = _values_of(options, SERVED) or _values_of(options, ("--model",))[:1]
    if not served and options and not options[0].startswith("-"):
        served = options[:1]
    adapters = _values_of(options, ("--lora-modules", "--lora_modules"))
    known = [*served, *(one.partition("=")[0] for one in adapters)] if served else []
    return [] if any("$" in one or one.startswith("{") for one in known) else known


def _split(word: str) -> list[str]:
    name, equals, value = word.partition("=")
    return [name, value] if equals and name.startswith("--") else [word]


def _values_of(options: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the words between an option and the next one."""
    place = max((at for at, option in enumerate(options) if option in names), default=None)
    found: list[str] = []
    for word in options[place + 1 :] if place is not None else ():
        if word.startswith("-"):
            break
        found.append(word)
    return found
