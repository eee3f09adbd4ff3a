"""A first configuration from what was found, with comments that teach.

Owns the text. What is on the machine is found by `findings`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from unicodedata import normalize

from proxy.beginning.findings import IDLE_SLEEP, QUANTISED, Found, Weights

MIB, GIB = 1 << 20, 1 << 30
IDLE = 2  # seconds; see docs/explanation/sleep.md
EXAMPLE = "small"  # what a model is called that is not there yet
SLEEPY = 1800  # seconds
SERVERS = {"gguf": "llama-server", "safetensors": "vllm", "ollama": "ollama"}
SMALL = {"llama-server": "ggml-org/gemma-3-1b-it-GGUF", "vllm": "Qwen/Qwen3-0.6B"}
"""A small model of each server's own to begin with; it is downloaded by the first start."""
HEAD = """\
# llamadoze: which models there are, and how each is served. Written by 'llamadoze init'.
#
#   llamadoze check          says what is wrong in this file
#   llamadoze serve          serves it at http://127.0.0.1:8080 (the page: /ui/)
#   llamadoze run {first:<10} talks to a model in the terminal
#
# A request names a model, and llamadoze makes it the running one. Commands need no shell: what is
# written here is what is run. ${{PORT}} is a free port that llamadoze chooses.
# docs/reference/configuration.md has all keys; 'llamadoze schema' prints them for editors.
"""
WHERE = """\
llamadoze serves models by programs that you install. None was found on PATH:

  llama.cpp   brew install llama.cpp (Linux, WSL, macOS) or apt install llama.cpp-tools (from Debian
              14 on); https://github.com/ggml-org/llama.cpp/releases has builds for each GPU.
              A first model comes with it: llama-server -hf ggml-org/gemma-3-1b-it-GGUF
  vLLM        uv tool install vllm (Linux with an NVIDIA or AMD GPU);
              a first model: vllm serve Qwen/Qwen3-0.6B
  Ollama      https://ollama.com/download; a first model: ollama pull gemma3:1b

Then run 'llamadoze init' again. 'llamadoze demo' shows two tiny models without any of them, if
llamadoze was installed with its extra: uv tool install 'llamadoze[demo]'
"""
ODD = re.compile(r"[^a-z0-9._-]+")
EVERYWHERE = ("/usr/local/bin", "/usr/bin", "/bin")
PLAIN = re.compile(r"[\w@%+=:,./-]+")
TRUTHS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")


def written(found: Found) -> str:
    """Return the text of the file.

    Args:
        found: what is on the machine; at least one program that serves.
    """
    named = _named(found)
    blocks = [block for name, one in named.items() for block in _model(name, one, found)]
    if not named:
        blocks = list(_example(found))
    first = names(found)[0]
    lines = [HEAD.format(first=first), *_room(found, len(named)), "models:", *blocks]
    return "\n".join(lines).rstrip() + "\n"


def names(found: Found) -> list[str]:
    """Return what the models in the file are called."""
    return list(_named(found)) or [EXAMPLE]


def _named(found: Found) -> dict[str, Weights]:
    known = [one for one in found.weights if SERVERS[one.format] in found.programs]
    return dict(zip(_names(known), known, strict=True))


def notes(found: Found) -> list[str]:
    """Return what is to be said of the file, in words."""
    if _named(found):
        return left_out(found)
    return [
        f"no weights were found: '{EXAMPLE}' is downloaded by its first start",
        *left_out(found),
    ]


def served(found: Found) -> list[str]:
    """Return the programs of the models in the file."""
    used = {SERVERS[one.format] for one in found.weights}
    return [name for name in found.programs if name in used] or [next(iter(found.programs))]


def left_out(found: Found) -> list[str]:
    """Return what was found and cannot be served, in words."""
    missing: dict[str, int] = {}
    for one in found.weights:
        if (program := SERVERS[one.format]) not in found.programs:
            missing[program] = missing.get(program, 0) + 1
    said = [
        f"left out: {_models(count)} for {program}, which is not on PATH"
        for program, count in missing.items()
    ]
    if found.odd:
        said.append(f"left out: {_models(found.odd)} with control characters or ${{ in the path")
    return said


def _models(count: int) -> str:
    return f"{count} model{'' if count == 1 else 's'}"


def _names(weights: Sequence[Weights]) -> Iterator[str]:
    """Yield a short name for each, none twice."""
    seen: set[str] = set()
    for one in weights:
        ascii_only = normalize("NFKD", one.name).encode("ascii", "ignore").decode()
        plain = ODD.sub("-", ascii_only.lower()).strip("-.")
        plain = plain or "model"  # of another alphabet
        short = QUANTISED.sub("", plain) or plain
        name = short if short not in seen else plain
        number = 2
        while name in seen:
            name, number = f"{plain}-{number}", number + 1
        seen.add(name)
        yield name


def _room(found: Found, count: int) -> Iterator[str]:
    """Yield who may run beside whom: by memory, where somebody tells how much there is."""
    for title, size in found.gpus:
        yield f"# {title}: {size / GIB:.0f} GiB"
    if found.gpus and count > 1:
        yield "# Models run side by side as long as their memory fits; llamadoze measures what each"
        yield "# takes. Without this, one model runs at a time."
        yield "routing:\n  router:\n    use: memory\n"
    else:
        yield "# One model runs at a time: the one that makes room sleeps if it can, else it is"
        yield "# stopped. With 'routing: {router: {use: memory}}' models share GPUs.\n"


def _model(name: str, one: Weights, found: Found) -> Iterator[str]:
    size = f", {_amount(one.size)}" if one.size else ""
    yield f"  # {one.name}{size}"
    yield f"  {_scalar(name)}:"
    if one.format == "gguf":
        yield from _llama_cpp(one, found)
    elif one.format == "safetensors":
        yield from _vllm(name, one.where, found)
    else:
        yield f"    cmd: env OLLAMA_HOST=127.0.0.1:${{PORT}} {_program('ollama', found)} serve"
        yield "    env: [OLLAMA_KEEP_ALIVE=-1]"
        yield f"    useModelName: {_scalar(one.where)}"
        yield "    sleep: ollama"
    yield ""


def _llama_cpp(one: Weights, found: Found) -> Iterator[str]:
    sees = f" --mmproj {_quoted(one.projector)}" if one.projector else ""
    kind = _kind(one.name)
    naps = f" {IDLE_SLEEP} {IDLE}" if found.naps else ""
    program = _program("llama-server", found)
    yield "    cmd: >-"
    yield f"      {program} --port ${{PORT}} -m {_quoted(one.where)}{sees}{kind}{naps}"
    if found.naps:
        yield f"    # It frees its memory after {IDLE} idle seconds, and loads at the next request."
        yield "    sleep: llama.cpp"
    else:
        yield f"    # This llama-server has no {IDLE_SLEEP}: it is stopped to make room."
        yield f"    # ttl: {SLEEPY}  # seconds without a request until it is stopped anyway"


def _program(name: str, found: Found) -> str:
    """Return how a command names a program: whole where a service would not find it on its PATH."""
    path = found.programs[name]
    return name if str(Path(path).parent) in EVERYWHERE else _quoted(path)


def _kind(name: str) -> str:
    """Return how llama-server is told that a model does not chat, by what its name says."""
    lowered = name.lower()
    if "rerank" in lowered:
        return " --reranking"
    return " --embeddings" if "embed" in lowered or lowered.startswith("bge-") else ""


def _vllm(name: str, repository: str, found: Found) -> Iterator[str]:
    yield "    cmd: >-"
    yield f"      {_program('vllm', found)} serve {_quoted(repository)} --served-model-name {name}"
    yield "      --host 127.0.0.1 --port ${PORT} --enable-sleep-mode"
    yield "    env: [VLLM_SERVER_DEV_MODE=1]  # vLLM has its sleep routes only in this mode"
    yield "    # Its weights wait in the host's memory; with vllm-level2 they are dropped."
    yield "    sleep: vllm"


def _example(found: Found) -> Iterator[str]:
    """Yield a small model to begin with, as no weights were found."""
    yield "  # No weights were found. The first start of this one downloads it."
    for program, repository in SMALL.items():
        if program in found.programs:
            yield f"  {EXAMPLE}:"
            if program == "vllm":
                yield from _vllm(EXAMPLE, repository, found)
            else:
                naps = f" {IDLE_SLEEP} {IDLE}" if found.naps else ""
                yield f"    cmd: {_program(program, found)} --port ${{PORT}} -hf {repository}{naps}"
                yield from ("    sleep: llama.cpp",) if found.naps else ()
            yield "    readyTimeout: 1800  # seconds; a download takes its time"
            return
    yield "  # ollama pull gemma3:1b"
    yield f"  {EXAMPLE}:"
    yield f"    cmd: env OLLAMA_HOST=127.0.0.1:${{PORT}} {_program('ollama', found)} serve"
    yield "    env: [OLLAMA_KEEP_ALIVE=-1]"
    yield "    useModelName: gemma3:1b"
    yield "    sleep: ollama"


def _amount(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{max(1, round(size / MIB))} MiB"


def _quoted(text: str) -> str:
    """Return an argument of a command as `configschema` reads it."""
    return text if PLAIN.fullmatch(text) else '"' + re.sub(r'(["\\\\])', r"\\\1", text) + '"'


def _scalar(text: str) -> str:
    """Return a text that YAML does not take for a number, a time or a truth."""
    is_plain = text[0].isalpha() and text not in TRUTHS and PLAIN.fullmatch(text)
    return text if is_plain else json.dumps(text)
