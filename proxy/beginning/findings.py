"""What is on this machine: programs that serve models, weights, and memory for them.

Owns where they are looked for. Nothing is downloaded, and no model is started.
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
"""Where GGUF files usually are; ``llama-server -hf`` puts them into its own cache."""
DEEPEST = 4  # folders below one of these
MOST_FOLDERS = 5000  # that are looked at, of all
MOST_MODELS = 100
SLOWEST_HELP = 10.0  # seconds
MAGIC = b"GGUF"  # as each file begins
PROJECTOR = "mmproj"
QUANTISED = re.compile(r"[-._](i?q\d\w*|f16|bf16|f32|fp8|awq|gptq)$", re.IGNORECASE)
"""How a name ends that says how exact the weights are."""
EXACT = re.compile(r"(?<!b)f16$", re.IGNORECASE)
NO_WEIGHTS = "ggml-vocab-"  # as llama.cpp calls its files for tests
PART = re.compile(r"-(\d{5})-of-(\d{5})$")

Format = Literal["gguf", "safetensors", "ollama"]


@attrs.frozen(kw_only=True)
class Weights:
    """A model that could be served.

    Attributes:
        name: what people call it.
        format: of its files.
        where: its first file; the repository's name; the name by which Ollama knows it.
        size: bytes of all its files; 0 if nobody says.
        projector: the file by which it sees images; empty for none.
    """

    name: str
    format: Format
    where: str
    size: int = 0
    projector: str = ""

    @property
    def is_writable(self) -> bool:
        """Whether a command can name its files: all printable, and nothing like a macro."""
        return all(one.isprintable() and "${" not in one for one in (self.where, self.projector))


@attrs.frozen(kw_only=True)
class Found:
    """All that was found.

    Attributes:
        programs: where each program is that serves models.
        weights: models, by size.
        gpus: title and bytes of each GPU.
        naps: whether llama-server can fall asleep by itself.
        odd: models left out, as their names cannot stand in a command.
    """

    programs: Mapping[str, str]
    weights: tuple[Weights, ...]
    gpus: tuple[tuple[str, int], ...] = ()
    naps: bool = False
    odd: int = 0


def look(folders: Iterable[str] = ()) -> Found:
    """Look at this machine.

    Args:
        folders: with GGUF files, in place of the usual ones.
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
    """Yield the models of a folder: one of several parts counts once, a projector for its model."""
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
    """Return the file by which a model sees: that of its folder if it is alone, or of its name."""
    own = [one for one in projectors if models == 1 or _is_of(one, model)]
    return min(own, key=lambda one: (not EXACT.search(one.stem), one.name), default=None)


def _is_of(projector: Path, model: Path) -> bool:
    """Whether a projector's name begins as a model's, or the other way round."""
    name = QUANTISED.sub("", projector.stem.lower().replace(PROJECTOR, "")).strip("-._")
    plain = QUANTISED.sub("", model.stem.lower())
    return bool(name) and (plain.startswith(name) or name.startswith(plain))


def _of_file(file: Path, size: int, projector: Path | None) -> Weights:
    stem = PART.sub("", file.stem)
    sees = str(projector.resolve()) if projector else ""
    where = str(Path.cwd() / file)  # a link of a cache has the name that people know
    return Weights(name=stem, format="gguf", where=where, size=size, projector=sees)


def _size(file: Path) -> int:
    """Return the bytes of a model's files; 0 for a part that is not the first, or is no GGUF."""
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
    except OSError:  # a part is missing, or a link leads nowhere
        return 0


def _hub() -> Path:
    """Return Hugging Face's cache of models, as its own libraries find it."""
    if cache := os.environ.get("HF_HUB_CACHE"):
        return Path(cache)
    home = os.environ.get("HF_HOME") or Path(
        os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser(), "huggingface"
    )
    return Path(home) / "hub"


def _repositories() -> Iterator[Weights]:
    """Yield the models of Hugging Face's cache: GGUF files, and what vLLM can serve."""
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
    """Whether a repository's own description says that it is a model."""
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
    """Whether a llama-server knows the option by which it falls asleep."""
    try:
        shown = subprocess.run(
            [program, "--help"], capture_output=True, timeout=SLOWEST_HELP, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return IDLE_SLEEP.encode() in shown.stdout + shown.stderr
