"""Model servers whose way to sleep is known: ``sleep: vllm`` and others.

Owns the steps of each, what proves them, and what the server needs for them. What each frees and
cannot do is told in the documentation. Sources: the servers' own documentation and routes.
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
        model: what it calls the model.
        argv: the command that starts it.
    """

    proxy: str
    model: str
    argv: tuple[str, ...] = ()

    def post(self, name: str, path: str, body: object = None, **more: object) -> Call:
        """Return a step that asks for something to be done."""
        text = "" if body is None else json.dumps(body)
        return self._call("POST", name, path, body=text, **more)

    def get(self, name: str, path: str, **more: object) -> Call:
        """Return a question, which is asked again until it is answered right."""
        return self._call("GET", name, path, repeat=True, **more)

    def _call(self, method: str, name: str, path: str, **more: object) -> Call:
        shown = f"{name} ({method} {path})"
        # The further fields of a call are passed through; attrs checks their names.
        return Call(name=shown, method=method, url=address(self.proxy, path), **more)  # type: ignore[arg-type]


@attrs.frozen(kw_only=True)
class Needs:
    """What a model server needs for its preset.

    Attributes:
        flags: options of its command, each with a value that will do if it takes one.
        env: variables of its environment.
        headers: of the daemon's own requests.
        driver: the oldest of NVIDIA's drivers that will do; 0 is none.
        program: that helps an older one.
        driver_with_program: the oldest that will do with it.
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
        build: returns how it sleeps and wakes.
        needs: what must be there for it.
        check_endpoint: where it answers 200, if not at the default.
        ready_timeout: seconds it may take to become ready, where no key says so; 0 is as others.
        naps: whether it also falls asleep by itself, and wakes by itself for a request.
        has_slots: whether it can save and restore prompt caches as llama.cpp does.
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
    """Weights first and the cache last, so that both copies of the weights have room."""
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
    """It has no route that tells whether it sleeps: memory and a token must.

    A release while something still runs kills the server; flushing is refused then, and harmless.
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
    """It falls asleep by itself when it was idle, and wakes for a request: it is never told to.

    To be asked for its properties neither wakes it nor keeps it awake. To split a text waits until
    the model is loaded, whatever kind it is of, and leaves its slots as they are. That is also the
    question after a wake: the properties might tell of the next nap. Source: the section "Sleeping
    on Idle" in the server's README.
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
    """Return after how many idle seconds llama.cpp falls asleep, as its command says it, or not."""
    pairs = pairwise(words_of(argv))
    return next((value for flag, value in pairs if flag.replace("_", "-") == IDLE_SECONDS), "")


def words_of(argv: Sequence[str]) -> Iterator[str]:
    """Yield the words of a command, also of a script that it gives to a shell."""
    for argument in argv:
        yield from argument.split()


def _llama_cpp_router(server: Server) -> Recipe:
    """A model that was not loaded yet is refused with 400, and is what is wanted."""
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
    """Without a prompt nothing is generated: 0 unloads, -1 loads and keeps."""
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
    """It answers 503 where nothing is loaded. What fails in a load is told in a good answer."""
    names = {"name": server.model, "model_name": server.model}  # in older ones and in newer ones
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


LOADS_LONG = 600  # it loads weights and compiles before it answers
IDLE_SECONDS = "--sleep-idle-seconds"
UNLOADS_IN = 30
"""Seconds for llama.cpp to drop what was cut and to free its model, once it was idle for long."""
RUNNING = "vllm:num_requests_running"
"""Of vLLM's metrics; it may be told to have none."""
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
