"""What is on this machine: programs that serve models, weights, and GPUs.

Owns where to look for them. It downloads nothing, and starts no model.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import attrs

PROGRAMS = ("llama-server", "vllm", "ollama")
IDLE_SLEEP = "--sleep-idle-seconds"
FOLDERS = (
    *(".", "models", "~/models", "/models", "/srv/models", "/opt/models"),
    *("~/.cache/llama.cpp", "~/Library/Caches/llama.cpp"),
    *("~/.lmstudio/models", "~/.cache/lm-studio/models"),
)
"""The usual folders of GGUF files, including the cache of ``llama-server -hf``."""
DEEPEST = 4  # levels below one of these folders
MOST_FOLDERS = 5000  # folders that are searched in all
MOST_MODELS = 100
SLOWEST_HELP = 10.0  # seconds
MAGIC = b"GGUF"  # the beginning of each file
PROJECTOR = "mmproj"
QUANTISED = re.compile(r"[-._](i?q\d\w*|f16|bf16|f32|fp8|awq|gptq)$", re.IGNORECASE)
"""The end of a name that tells the precision of the weights."""
EXACT = re.compile(r"(?<!b)f16$", re.IGNORECASE)
NO_WEIGHTS = "ggml-vocab-"  # llama.cpp's name for its test files
PART = re.compile(r"-(\d{5})-of-(\d{5})$")

Format = Literal["gguf", "safetensors", "ollama"]


@attrs.frozen(kw_only=True)
class Weights:
    """A model that could be served.

    Attributes:
        name: a readable name.
        format: the format of its files.
        where: its first file, its repository, or its name in Ollama.
        size: the bytes of all its files; 0 if unknown.
        projector: the file that lets it see images; empty for none.
    """

    name: str
    format: Format
    where: str
    size: int = 0
    projector: str = ""

    @property
    def is_writable(self) -> bool:
        """Whether a command can name its files: all characters printable, and no macros."""
        return all(one.isprintable() and "${" not in one for one in (self.where, self.projector))


@attrs.frozen(kw_only=True)
class Found:
    """Everything that was found.

    Attributes:
        programs: the path of each program that serves models.
        weights: the models, by size.
        gpus: the title and the bytes of each GPU.
        naps: whether llama-server can fall asleep by itself.
        odd: the number of models left out because a command cannot have their names.
    """

    programs: Mapping[str, str]
    weights: tuple[Weights, ...]
    gpus: tuple[tuple[str, int], ...] = ()
    naps: bool = False
    odd: int = 0


def look(folders: Iterable[str] = ()) -> Found:
    """Search this machine.

    Args:
        folders: folders with GGUF files, in place of the usual ones.
    """
    programs = {name: path for name in PROGRAMS if (path := shutil.which(name))}
    found = [*_gguf_files(folders or FOLDERS), *_repositories(), *_of_ollama()]
    unique = {one.where: one for one in found if one.is_writable}.values()
    weights = sorted(unique, key=lambda one: (one.size, one.name))[:MOST_MODELS]
    return Found(
        programs=programs,
        weights=tuple(weights),
        odd=sum(not one.is_writable for one in found),
        gpus=_gpus(),
        naps="llama-server" in programs and _can_nap(programs["llama-server"]),
    )


def _gguf_files(folders: Iterable[str]) -> Iterator[Weights]:
    budget = iter(range(MOST_FOLDERS))
    for folder in folders:
        yield from _gguf_in(Path(folder).expanduser(), budget)


def _gguf_in(root: Path, budget: Iterator[int]) -> Iterator[Weights]:
    """Yield a folder's models. A model in several parts counts once. Projectors are no models."""
    for folder, inner, names in os.walk(root):
        if next(budget, None) is None:
            return
        depth = len(Path(folder).relative_to(root).parts)
        inner[:] = sorted(one for one in inner if not one.startswith(".") and depth < DEEPEST)
        shown = [one for one in sorted(names) if not one.startswith(".")]
        files = [Path(folder, one) for one in shown if one.lower().endswith(".gguf")]
        projectors = [one for one in files if PROJECTOR in one.name.lower()]
        others = [one for one in files if one not in projectors and NO_WEIGHTS not in one.name]
        models = {file: size for file in others if (size := _size(file))}
        for file, size in models.items():
            yield _of_file(file, size, _projector(file, projectors, len(models)))


def _projector(model: Path, projectors: Sequence[Path], models: int) -> Path | None:
    """Return a model's projector: the only model of a folder gets any, others one of their name."""
    own = [one for one in projectors if models == 1 or _is_of(one, model)]
    return min(own, key=lambda one: (not EXACT.search(one.stem), one.name), default=None)


def _is_of(projector: Path, model: Path) -> bool:
    """Whether a projector's name begins with a model's name, or the reverse."""
    name = QUANTISED.sub("", projector.stem.lower().replace(PROJECTOR, "")).strip("-._")
    plain = QUANTISED.sub("", model.stem.lower())
    return bool(name) and (plain.startswith(name) or name.startswith(plain))


def _of_file(file: Path, size: int, projector: Path | None) -> Weights:
    stem = PART.sub("", file.stem)
    sees = str(projector.resolve()) if projector else ""
    where = str(Path.cwd() / file)  # not resolved: a cache's link has the readable name
    return Weights(name=stem, format="gguf", where=where, size=size, projector=sees)


def _size(file: Path) -> int:
    """Return the bytes of a model's files; 0 for a later part, or a file that is not GGUF."""
    part = PART.search(file.stem)
    if part and int(part[1]) != 1:
        return 0
    count = int(part[2]) if part else 1
    stem = PART.sub("", file.stem)
    names = [f"{stem}-{n:05}-of-{count:05}" for n in range(1, count + 1)] if part else [file.stem]
    try:
        with file.open("rb") as opened:
            if opened.read(len(MAGIC)) != MAGIC:
                return 0
        return sum(file.with_name(f"{name}{file.suffix}").stat().st_size for name in names)
    except OSError:  # a part is missing, or a link is broken
        return 0


def _hub() -> Path:
    """Return Hugging Face's cache of models, found as its own libraries do."""
    if cache := os.environ.get("HF_HUB_CACHE"):
        return Path(cache)
    home = os.environ.get("HF_HOME") or Path(
        os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser(), "huggingface"
    )
    return Path(home) / "hub"


def _repositories() -> Iterator[Weights]:
    """Yield the models of Hugging Face's cache: GGUF files, and models that vLLM can serve."""
    for folder in sorted(_hub().glob("models--*")):
        snapshots = sorted(folder.glob("snapshots/*"), key=lambda one: one.lstat().st_mtime)
        if not snapshots:
            continue
        newest = snapshots[-1]
        yield from _gguf_in(newest, iter(range(MOST_FOLDERS)))
        size = sum(one.stat().st_size for one in newest.glob("*.safetensors") if one.exists())
        if size and _is_generator(newest / "config.json"):
            name = folder.name.removeprefix("models--").replace("--", "/")
            yield Weights(name=name.split("/")[-1], format="safetensors", where=name, size=size)


def _is_generator(file: Path) -> bool:
    """Whether a repository's own config.json says that it is a model."""
    try:
        return bool(json.loads(file.read_text()).get("architectures"))
    except (OSError, ValueError, AttributeError):
        return False


def _of_ollama() -> Iterator[Weights]:
    """Yield the models that Ollama has pulled."""
    home = Path(os.environ.get("OLLAMA_MODELS") or Path("~/.ollama/models").expanduser())
    for folder in sorted((home / "manifests/registry.ollama.ai/library").glob("*")):
        for file in sorted(folder.glob("*")):
            name = f"{folder.name}:{file.name}"
            yield Weights(name=name, format="ollama", where=name, size=_layers(file))


def _layers(file: Path) -> int:
    try:
        return sum(int(one["size"]) for one in json.loads(file.read_text())["layers"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _gpus() -> tuple[tuple[str, int], ...]:
    from supervisor.room import devices

    return tuple((one.device.title, one.device.total) for one in devices.look(()))


def _can_nap(program: str) -> bool:
    """Whether a llama-server has the option to fall asleep by itself."""
    try:
        shown = subprocess.run(
            [program, "--help"], capture_output=True, timeout=SLOWEST_HELP, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return IDLE_SLEEP.encode() in shown.stdout + shown.stderr
