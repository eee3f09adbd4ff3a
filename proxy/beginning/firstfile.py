"""A first configuration from what was found, with comments that explain it.

Owns the text. `findings` finds what is on the machine.
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
EXAMPLE = "small"  # the name of a model that is not downloaded yet
SLEEPY = 1800  # seconds
SERVERS = {"gguf": "llama-server", "safetensors": "vllm", "ollama": "ollama"}
SMALL = {"llama-server": "ggml-org/gemma-3-1b-it-GGUF", "vllm": "Qwen/Qwen3-0.6B"}
"""A small model to begin with for each server, which the first start downloads."""
HEAD = """\
# The models that llamadoze serves, and how it serves each. Written by 'llamadoze init'.
#
#   llamadoze check          finds mistakes in this file
#   llamadoze serve          serves the models at http://127.0.0.1:8080 (the page: /ui/)
#   llamadoze run {first:<10} chats with a model in the terminal
#
# A request names a model, and llamadoze starts or wakes that model. No shell runs the commands:
# their words are passed on as they are. ${{PORT}} is a free port that llamadoze chooses.
# docs/reference/configuration.md explains all keys; 'llamadoze schema' prints them for editors.
"""
WHERE = """\
llamadoze serves models with programs that you install. None of them is on PATH:

  llama.cpp   brew install llama.cpp (Linux, WSL, macOS) or apt install llama.cpp-tools (from Debian
              14 on); https://github.com/ggml-org/llama.cpp/releases has builds for each GPU.
              To download a first model: llama-server -hf ggml-org/gemma-3-1b-it-GGUF
  vLLM        uv tool install vllm (Linux with an NVIDIA or AMD GPU);
              a first model: vllm serve Qwen/Qwen3-0.6B
  Ollama      https://ollama.com/download; a first model: ollama pull gemma3:1b

Install one of them, and run 'llamadoze init' again. 'llamadoze demo' serves two tiny models without
them, if llamadoze has its extra 'demo'. In a clone: uv tool install --reinstall '.[gpu,demo]'
"""
ODD = re.compile(r"[^a-z0-9._-]+")
EVERYWHERE = ("/usr/local/bin", "/usr/bin", "/bin")
PLAIN = re.compile(r"[\w@%+=:,./-]+")
TRUTHS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")


def written(found: Found) -> str:
    """Return the text of the file.

    Args:
        found: what is on the machine, with at least one program that serves models.
    """
    named = _named(found)
    blocks = [block for name, one in named.items() for block in _model(name, one, found)]
    if not named:
        blocks = list(_example(found))
    first = names(found)[0]
    lines = [HEAD.format(first=first), *_room(found, len(named)), "models:", *blocks]
    return "\n".join(lines).rstrip() + "\n"


def names(found: Found) -> list[str]:
    """Return the names of the models in the file."""
    return list(_named(found)) or [EXAMPLE]


def _named(found: Found) -> dict[str, Weights]:
    known = [one for one in found.weights if SERVERS[one.format] in found.programs]
    return dict(zip(_names(known), known, strict=True))


def notes(found: Found) -> list[str]:
    """Return the notes on the file for the user."""
    if _named(found):
        return left_out(found)
    return [
        f"no weights were found: the first start of '{EXAMPLE}' downloads it",
        *left_out(found),
    ]


def served(found: Found) -> list[str]:
    """Return the programs that serve the models of the file."""
    used = {SERVERS[one.format] for one in found.weights}
    return [name for name in found.programs if name in used] or [next(iter(found.programs))]


def left_out(found: Found) -> list[str]:
    """Return notes on models that were found but cannot be served."""
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
    """Yield a short and unique name for each model."""
    seen: set[str] = set()
    for one in weights:
        ascii_only = normalize("NFKD", one.name).encode("ascii", "ignore").decode()
        plain = ODD.sub("-", ascii_only.lower()).strip("-.")
        plain = plain or "model"  # the name has no Latin letters
        short = QUANTISED.sub("", plain) or plain
        name = short if short not in seen else plain
        number = 2
        while name in seen:
            name, number = f"{plain}-{number}", number + 1
        seen.add(name)
        yield name


def _room(found: Found, count: int) -> Iterator[str]:
    """Yield the rule about which models run together: by memory, if GPUs are known."""
    for title, size in found.gpus:
        yield f"# {title}: {size / GIB:.0f} GiB"
    if found.gpus and count > 1:
        yield "# Models run together as long as their memory fits. llamadoze measures how much each"
        yield "# needs. Without this rule, one model runs at a time."
        yield "routing:\n  router:\n    use: memory\n"
    else:
        yield "# One model runs at a time. The model that makes room sleeps if it can, and else"
        yield "# stops. With 'routing: {router: {use: memory}}' models share GPUs.\n"


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
        yield f"    # This llama-server has no {IDLE_SLEEP}, so it is stopped to make room."
        yield f"    # ttl: {SLEEPY}  # idle seconds until it is stopped in any case"


def _program(name: str, found: Found) -> str:
    """Return a program for a command: its full path if a service's PATH does not have it."""
    path = found.programs[name]
    return name if str(Path(path).parent) in EVERYWHERE else _quoted(path)


def _kind(name: str) -> str:
    """Return the option for a model that does not chat, judged by its name."""
    lowered = name.lower()
    if "rerank" in lowered:
        return " --reranking"
    return " --embeddings" if "embed" in lowered or lowered.startswith("bge-") else ""


def _vllm(name: str, repository: str, found: Found) -> Iterator[str]:
    yield "    cmd: >-"
    yield f"      {_program('vllm', found)} serve {_quoted(repository)} --served-model-name {name}"
    yield "      --host 127.0.0.1 --port ${PORT} --enable-sleep-mode"
    yield "    env: [VLLM_SERVER_DEV_MODE=1]  # vLLM has its sleep routes in this mode only"
    yield "    # While asleep, the weights stay in host memory; vllm-level2 drops them."
    yield "    sleep: vllm"


def _example(found: Found) -> Iterator[str]:
    """Yield a small model to begin with, because no weights were found."""
    yield "  # No weights were found. The first start of this model downloads it."
    for program, repository in SMALL.items():
        if program in found.programs:
            yield f"  {EXAMPLE}:"
            if program == "vllm":
                yield from _vllm(EXAMPLE, repository, found)
            else:
                naps = f" {IDLE_SLEEP} {IDLE}" if found.naps else ""
                yield f"    cmd: {_program(program, found)} --port ${{PORT}} -hf {repository}{naps}"
                yield from ("    sleep: llama.cpp",) if found.naps else ()
            yield "    readyTimeout: 1800  # seconds; a download takes a while"
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
    """Return an argument, quoted for a command as `configschema` reads it."""
    return text if PLAIN.fullmatch(text) else '"' + re.sub(r'(["\\\\])', r"\\\1", text) + '"'


def _scalar(text: str) -> str:
    """Return a text, quoted if YAML could take it for a number, a time or a truth value."""
    is_plain = text[0].isalpha() and text not in TRUTHS and PLAIN.fullmatch(text)
    return text if is_plain else json.dumps(text)
