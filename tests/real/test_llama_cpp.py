"""Sleep with a real llama.cpp, where memory is really freed.

The tests of the demo's server and of the idle sleep run everywhere. The test of the router needs
the program llama-server, which LLAMADOZE_LLAMA_SERVER names.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from proxy.demo.weights import Shape, write_model
from supervisor.processes.memory import weigh
from tests.peers.client import ask, chat
from tests.proxy.daemon import daemon, stub
from tests.supervisor.sleep.test_sleep_and_wake import LogLines, events

LLAMA_SERVER = os.environ.get("LLAMADOZE_LLAMA_SERVER", "")
SHAPE = Shape(width=512, heads=8, layers=8, inner=2048)
HI: dict[str, Any] = {"max_tokens": 4, "messages": [{"role": "user", "content": "hi"}]}
SIZE = 67 << 20  # bytes of the model


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model of 67 MB."""
    folder = tmp_path_factory.mktemp("gguf")
    write_model(folder / "big.gguf", name="big", seed=1, shape=SHAPE)
    return folder


async def held(pid: int) -> int:
    return (await weigh(pid, True)).host or 0


def python(module: str, gguf: Path, options: str = "", **keys: Any) -> dict[str, Any]:
    command = f"{sys.executable} -m {module} --model {gguf / 'big.gguf'} --port ${{PORT}} {options}"
    return {"cmd": command, "proxy": "http://127.0.0.1:${PORT}", **keys}


async def until_it_naps(port: int) -> None:
    with trio.fail_after(8):
        while not (await ask(port, "GET", "/upstream/a/props")).json()["is_sleeping"]:
            await trio.sleep(0.1)


async def test_the_demos_server_frees_its_memory_and_that_is_verified(
    gguf: Path, log_lines: LogLines
) -> None:
    """The sleep frees the model's 67 MB, and the wake loads the model in the same process."""
    verify = {"hostMemory": True, "freed": 30, "canary": True}
    sleeper = python("proxy.demo.server", gguf, sleep="vllm", verify=verify)
    async with daemon({"a": sleeper, "b": stub()}) as running:
        await chat(running.port, "a", **HI)
        first = running.pid("a")
        await chat(running.port, "b")
        assert running.state("a") == "asleep"
        freed = running.supervisor.servers["a"].sleeping.amounts["host"].freed
        assert freed > SIZE * 0.9
        assert (await chat(running.port, "a", **HI)).status == 200
        assert running.pid("a") == first
    assert any("<a> Sleep freed" in line for line in events(log_lines))


async def test_a_server_that_sleeps_by_itself_is_left_alone_and_wakes_for_a_request(
    gguf: Path,
) -> None:
    """llama.cpp falls asleep by itself: checks do not wake it, and it needs no sleep of ours."""
    sleeper = python("tests.real.llama_cpp", gguf, "--sleep-idle-seconds 1")
    async with daemon({"a": sleeper}) as running:
        await chat(running.port, "a", **HI)
        pid = running.pid("a") or 0
        awake = await held(pid)
        with trio.fail_after(8):
            while await held(pid) > awake - SIZE * 0.8:
                await trio.sleep(0.1)
        props = (await ask(running.port, "GET", "/upstream/a/props")).json()
        assert props["is_sleeping"] is True
        assert (await ask(running.port, "GET", "/upstream/a/health")).status == 200
        assert await held(pid) < awake - SIZE * 0.8
        assert (await chat(running.port, "a", **HI)).status == 200
        assert running.pid("a") == pid


async def test_plain_servers_make_room_by_their_own_sleep_and_keep_their_processes(
    gguf: Path, log_lines: LogLines
) -> None:
    """With the preset, each swap is a sleep that frees memory and a wake of the same process."""
    sleeper = python(
        "tests.real.llama_cpp",
        gguf,
        "--sleep-idle-seconds 1",
        sleep="llama.cpp",
        verify={"freed": 30},
    )
    async with daemon({"a": sleeper, "b": sleeper}) as running:
        pids: dict[str, set[int | None]] = {"a": set(), "b": set()}
        for model, other in (("a", "b"), ("b", "a"), ("a", "b"), ("b", "a")):
            assert (await chat(running.port, model, **HI)).status == 200
            pids[model].add(running.pid(model))
            assert await held(running.pid(model) or 0) > SIZE
            if pid := running.pid(other):
                assert running.state(other) == "asleep"
                assert await held(pid) < SIZE * 1.2
        assert [len(ones) for ones in pids.values()] == [1, 1]
    said = events(log_lines)
    assert any("Sleep freed" in line for line in said)  # not of a server that has begun to nap
    assert sum("Model wake completed in" in line for line in said) == 2
    assert not any("falling back" in line or "restarting" in line for line in said)


async def test_a_nap_between_requests_is_neither_a_sleep_nor_a_fault(
    gguf: Path, log_lines: LogLines
) -> None:
    """A request wakes a server that naps; a swap puts a server that naps to sleep at once."""
    options = "--sleep-idle-seconds 1"
    sleeper = python("tests.real.llama_cpp", gguf, options, sleep="llama.cpp")
    async with daemon({"a": sleeper, "b": stub()}) as running:
        await chat(running.port, "a", **HI)
        pid = running.pid("a")
        await until_it_naps(running.port)
        assert running.state("a") == "ready"
        assert (await chat(running.port, "a", **HI)).status == 200
        assert running.pid("a") == pid
        await until_it_naps(running.port)
        await chat(running.port, "b")
        assert running.state("a") == "asleep"
        assert (await chat(running.port, "a", **HI)).status == 200
        assert running.pid("a") == pid
    said = events(log_lines)
    assert sum("Model wake completed in" in line for line in said) == 1
    for words in ("somebody else", "Stop()", "Sleep freed"):  # there was nothing left to free
        assert not any(words in line for line in said)


async def test_a_server_of_embeddings_with_a_key_sleeps_and_wakes_by_the_same_preset(
    gguf: Path,
) -> None:
    """The wake splits a text, which servers of all kinds can do; controlHeaders has the key."""
    options = "--sleep-idle-seconds 1 --embedding --api-key k"
    key = {"authorization": "Bearer k"}
    keys: dict[str, Any] = {"controlHeaders": key, "verify": {"freed": 30}}
    sleeper = python("tests.real.llama_cpp", gguf, options, sleep="llama.cpp", **keys)
    async with daemon({"a": sleeper, "b": stub()}) as running:
        await chat(running.port, "a", **HI)
        pid = running.pid("a")
        await chat(running.port, "b")
        assert running.state("a") == "asleep"
        await running.supervisor.load("a")
        assert running.pid("a") == pid
        assert await held(pid or 0) > SIZE


@pytest.mark.parametrize("sleep", [{}, {"sleep": "llama.cpp", "verify": {"freed": 30}}])
async def test_a_long_prompt_is_not_read_again_after_a_swap(
    gguf: Path, tmp_path: Path, log_lines: LogLines, sleep: dict[str, Any]
) -> None:
    """Slots are saved before the stop or sleep, and restored after the start or wake."""
    options = f"--slot-save-path {tmp_path}" + (" --sleep-idle-seconds 2" if sleep else "")
    keeper = python("tests.real.llama_cpp", gguf, options, slots="keep", **sleep)
    long: dict[str, Any] = {"prompt": "calm cat " * 150, "max_tokens": 1}
    async with daemon({"a": keeper, "b": stub()}) as running:
        first = (await ask(running.port, "POST", "/v1/completions", {"model": "a", **long})).json()
        await chat(running.port, "b")
        assert running.state("a") == ("asleep" if sleep else "stopped")
        again = (await ask(running.port, "POST", "/v1/completions", {"model": "a", **long})).json()
    assert first["timings"]["cache_n"] == 0
    assert again["timings"]["cache_n"] == first["timings"]["prompt_n"] - 1
    (name,) = os.listdir(tmp_path)
    assert name.startswith("llamadoze-")
    said = events(log_lines)
    assert sum("<a> Restored 1 of 1 slots" in line for line in said) == 1


@pytest.mark.skipif(not LLAMA_SERVER, reason="LLAMADOZE_LLAMA_SERVER names no llama-server")
async def test_the_router_unloads_and_loads_by_its_preset(gguf: Path, log_lines: LogLines) -> None:
    """The model's process ends, the router's stays; also for a model with a dot in its name."""
    write_model(gguf / "tiny.v1.gguf", name="tiny", seed=2)
    router = f"{LLAMA_SERVER} --port ${{PORT}} --models-dir {gguf} --models-max 1"
    both = {"cmd": router, "proxy": "http://127.0.0.1:${PORT}", "sleep": "llama.cpp-router"}
    small = {**both, "useModelName": "tiny.v1"}
    async with daemon({"big": both, "small": small, "b": stub()}) as running:
        for model in ("big", "small"):
            assert (await chat(running.port, model, **HI)).status == 200
            first = running.pid(model)
            await chat(running.port, "b")
            assert running.state(model) == "asleep"
            assert (await chat(running.port, model, **HI)).status == 200
            assert running.pid(model) == first
        await chat(running.port, "b")
        assert running.supervisor.servers["big"].sleeping.amounts["host"].freed > SIZE
    assert not any("falling back" in line or "restarting" in line for line in events(log_lines))
