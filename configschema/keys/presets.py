"""Presets: model servers whose way to sleep is known, such as ``sleep: vllm``.

Owns the steps of each, what proves them, and what the server needs for them. The documentation
tells what each frees and cannot do. Sources: the servers' own documentation and routes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Literal

import attrs

from configschema.keys.recipe import Call, Checkpoint, Recipe, Step, address

PresetName = Literal[
    "vllm",
    "vllm-level2",
    "sglang",
    "llama.cpp",
    "llama.cpp-router",
    "ollama",
    "tabbyapi",
    "cuda-checkpoint",
]


@attrs.frozen
class Server:
    """The model server that a preset is for.

    Attributes:
        proxy: its address.
        model: the server's name for the model.
        argv: the command that starts it.
    """

    proxy: str
    model: str
    argv: tuple[str, ...] = ()

    def post(self, name: str, path: str, body: object = None, **more: object) -> Call:
        """Return a step that makes the server do something."""
        text = "" if body is None else json.dumps(body)
        return self._call("POST", name, path, body=text, **more)

    def get(self, name: str, path: str, **more: object) -> Call:
        """Return a question, which is repeated until its answer is right."""
        return self._call("GET", name, path, repeat=True, **more)

    def _call(self, method: str, name: str, path: str, **more: object) -> Call:
        shown = f"{name} ({method} {path})"
        # The further fields of a call are passed through; attrs checks their names.
        return Call(name=shown, method=method, url=address(self.proxy, path), **more)  # type: ignore[arg-type]


@attrs.frozen(kw_only=True)
class Needs:
    """What a model server needs for its preset.

    Attributes:
        flags: options of its command, each with a suitable value if it takes one.
        env: variables of its environment.
        headers: headers of llamadoze's own requests.
        driver: the oldest suitable NVIDIA driver; 0 if none is needed.
        program: a program that helps an older driver.
        driver_with_program: the oldest suitable driver with that program.
    """

    flags: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    driver: int = 0
    program: str = ""
    driver_with_program: int = 0


@attrs.frozen(kw_only=True)
class Preset:
    """One kind of model server.

    Attributes:
        build: returns how the server sleeps and wakes.
        needs: what the server needs.
        check_endpoint: the path that answers 200, if not the default one.
        ready_timeout: seconds to become ready if no key sets them; 0 is the general default.
        naps: whether the server also falls asleep and wakes by itself.
        has_slots: whether it can save and restore prompt caches, as llama.cpp does.
    """

    build: Callable[[Server], Recipe]
    needs: Needs = Needs()
    check_endpoint: str = ""
    ready_timeout: int = 0
    naps: bool = False
    has_slots: bool = False


def _vllm(server: Server) -> Recipe:
    return _of_vllm(server, 1, (server.post("wake", "/wake_up"),))


def _vllm_level2(server: Server) -> Recipe:
    """Wakes the weights first and the cache last, so that both copies of the weights fit."""
    wake = (
        server.post("wake weights", "/wake_up?tags=weights"),
        server.post("reload weights", "/collective_rpc", {"method": "reload_weights"}),
        server.post("wake cache", "/wake_up?tags=kv_cache"),
        server.post("reset cache", "/reset_prefix_cache", optional=True),
    )
    return attrs.evolve(_of_vllm(server, 2, wake), canary=True)


def _of_vllm(server: Server, level: int, wake: tuple[Step, ...]) -> Recipe:
    return Recipe(
        sleep=(server.post("sleep", f"/sleep?level={level}"),),
        wake=wake,
        asleep=(server.get("asleep", "/is_sleeping", holds="is_sleeping"),),
        awake=(server.get("awake", "/is_sleeping", holds="!is_sleeping"),),
        idle=(server.get("idle", "/metrics", idle_metric=RUNNING, expect=(200, 404)),),
        sleeps_at_ttl=True,
    )


def _sglang(server: Server) -> Recipe:
    """SGLang has no route that tells whether it sleeps: freed memory and a token prove it.

    A release of memory while a request is in flight kills the server. So the cache is flushed
    first, which SGLang refuses, without harm, while a request is in flight.
    """
    return Recipe(
        sleep=(
            server.post("flush cache", "/flush_cache", repeat=True, limit=10),
            server.post("release memory", "/release_memory_occupation", {}),
        ),
        wake=(server.post("resume memory", "/resume_memory_occupation", {}),),
        canary=True,
        sleeps_at_ttl=True,
    )


def _llama_cpp(server: Server) -> Recipe:
    """llama.cpp falls asleep by itself when idle, and wakes for a request. No route does either.

    A request for its properties does not wake it or keep it awake. A request to tokenize a text
    waits until the model is loaded, whatever kind of model that is, and leaves its slots unchanged.
    It is also the question after a wake, because the properties may tell of the next nap already.
    Source: the section "Sleeping on Idle" in the server's README.
    """
    idle = idle_seconds(server.argv)
    limit = int(idle) + UNLOADS_IN if idle.isdecimal() else None
    split = {"content": "a"}
    return Recipe(
        sleep=(server.get("nap", "/props", holds="is_sleeping", limit=limit),),
        wake=(server.post("wake", "/tokenize", split),),
        asleep=(server.get("asleep", "/props", holds="is_sleeping"),),
        awake=(server.post("awake", "/tokenize", split, repeat=True),),
        host_memory=True,
        sleeps_at_ttl=True,
    )


def idle_seconds(argv: Sequence[str]) -> str:
    """Return the idle seconds until llama.cpp falls asleep, from its command; empty if not set."""
    pairs = pairwise(words_of(argv))
    return next((value for flag, value in pairs if flag.replace("_", "-") == IDLE_SECONDS), "")


def words_of(argv: Sequence[str]) -> Iterator[str]:
    """Yield the words of a command, including those of a script for a shell."""
    for argument in argv:
        yield from argument.split()


def _llama_cpp_router(server: Server) -> Recipe:
    """Status 400 counts as success: the router refuses to unload a model that is not loaded."""
    model, name = {"model": server.model}, _literal(server.model)
    status = f"data[?id == {name}].status.value | [0]"
    return Recipe(
        sleep=(server.post("unload", "/models/unload", model, expect=(200, 400)),),
        wake=(
            server.post("load", "/models/load", model, expect=(200, 400)),
            server.get("loaded", "/models", holds=f"{status} == 'loaded'"),
        ),
        asleep=(server.get("unloaded", "/models", holds=f"{status} == 'unloaded'"),),
        host_memory=True,
        sleeps_at_ttl=True,
    )


def _ollama(server: Server) -> Recipe:
    """Without a prompt, Ollama generates nothing: keep_alive 0 unloads, -1 loads and keeps."""
    tagged = server.model if ":" in server.model else f"{server.model}:latest"
    there = f"contains(models[].name, {_literal(tagged)})"

    def keep(seconds: int) -> dict[str, object]:
        return {"model": server.model, "keep_alive": seconds, "stream": False}

    return Recipe(
        sleep=(server.post("unload", "/api/generate", keep(0)),),
        wake=(server.post("load", "/api/generate", keep(-1)),),
        asleep=(server.get("unloaded", "/api/ps", holds=f"!{there}"),),
        awake=(server.get("loaded", "/api/ps", holds=there),),
        sleeps_at_ttl=True,
    )


def _tabbyapi(server: Server) -> Recipe:
    """TabbyAPI answers 503 if no model is loaded. It reports a failed load with a good status."""
    names = {
        "name": server.model,
        "model_name": server.model,
    }  # one for older versions, one for newer ones
    return Recipe(
        sleep=(server.post("unload", "/v1/model/unload", expect=(200, 503)),),
        wake=(server.post("load", "/v1/model/load", names),),
        asleep=(server.get("unloaded", "/v1/model", expect=(503,)),),
        awake=(server.get("loaded", "/v1/model", holds=f"id == {_literal(server.model)}"),),
        sleeps_at_ttl=True,
    )


def _cuda_checkpoint(_: Server) -> Recipe:
    return Recipe(
        sleep=(Checkpoint(name="cuda-checkpoint suspend", action="suspend"),),
        wake=(Checkpoint(name="cuda-checkpoint resume", action="resume"),),
        canary=True,
        sleeps_at_ttl=True,
    )


def _literal(text: str) -> str:
    """Return a text as a JMESPath literal, which is JSON between backticks."""
    return "`" + json.dumps(text).replace("`", "\\`") + "`"


LOADS_LONG = 600  # these servers load weights and compile before they answer
IDLE_SECONDS = "--sleep-idle-seconds"
UNLOADS_IN = 30
"""Seconds for llama.cpp to drop cancelled requests and free its model, after its idle time."""
RUNNING = "vllm:num_requests_running"
"""A metric of vLLM. The server may be started without metrics."""
_NEEDS_OF_VLLM = Needs(flags=("--enable-sleep-mode",), env=("VLLM_SERVER_DEV_MODE=1",))
PRESETS: Mapping[PresetName, Preset] = {
    "vllm": Preset(build=_vllm, needs=_NEEDS_OF_VLLM, ready_timeout=LOADS_LONG),
    "vllm-level2": Preset(build=_vllm_level2, needs=_NEEDS_OF_VLLM, ready_timeout=LOADS_LONG),
    "sglang": Preset(
        build=_sglang,
        needs=Needs(flags=("--enable-memory-saver", "--enable-weights-cpu-backup")),
        ready_timeout=LOADS_LONG,
    ),
    "llama.cpp": Preset(
        build=_llama_cpp, needs=Needs(flags=(f"{IDLE_SECONDS} 2",)), naps=True, has_slots=True
    ),
    "llama.cpp-router": Preset(build=_llama_cpp_router, has_slots=True),
    "ollama": Preset(
        build=_ollama,
        needs=Needs(env=("OLLAMA_KEEP_ALIVE=-1",)),
        check_endpoint="/api/version",
    ),
    "tabbyapi": Preset(build=_tabbyapi, needs=Needs(headers=("authorization",))),
    "cuda-checkpoint": Preset(
        build=_cuda_checkpoint,
        needs=Needs(driver=570, program="cuda-checkpoint", driver_with_program=550),
    ),
}
