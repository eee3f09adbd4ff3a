"""With `use: memory`, a start or wake that lacks memory is tried again with the whole device."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from supervisor import ModelFailed, State, Supervisor
from supervisor.model.crowding import SHORT_OF_MEMORY
from supervisor.states.footprint import Footprint
from tests.supervisor.scheduling.fakeroom import (
    GIB,
    FakeRoom,
    Takes,
    opened,
    room,
    served,
    written,
)
from tests.supervisor.sleep.test_sleep_and_wake import LogLines, events, state, use

__all__ = ["room"]  # a fixture

AGAIN = (
    "<a> There was too little memory for the model; llamadoze tries once more, with all there is"
)


def footprint(supervisor: Supervisor, name: str) -> Footprint:
    return supervisor.servers[name].known.footprint


def starts(room: FakeRoom, name: str) -> int:
    return room.history.count(f"+ serve {name}")


def pair(room: FakeRoom, guessed: float, taken: float, **keys: Any) -> str:
    """Return a model that takes more or less than guessed, and a sleeper beside it on one GPU."""
    room.gpus = {"GPU-aa": 24.0}
    room.takes = {
        "a": Takes(gpu=taken, host=1, gpu_asleep=1),
        "b": Takes(gpu=10, host=1, gpu_asleep=4),
    }
    a = served("a", memory={"gpu": guessed}, **keys)
    return written({"a": a, "b": served("b", memory={"gpu": 10})}, {})


async def test_a_start_that_lacks_memory_is_made_again_with_all_there_is(
    autojump_clock: MockClock, room: FakeRoom, log_lines: LogLines
) -> None:
    """The request is served; what is known of the model was raised, and then measured."""
    async with opened(room, pair(room, guessed=10, taken=21)) as supervisor:
        await use(supervisor, "b")
        await use(supervisor, "a", 3)
        assert starts(room, "a") == 2
        assert [state(supervisor, name) for name in "ab"] == [State.READY, State.STOPPED]
        assert supervisor.servers["a"].backoff.failures == 0
        assert footprint(supervisor, "a").gpus == (21 * GIB,)
        assert not footprint(supervisor, "a").is_short
        await use(supervisor, "b")
        await use(supervisor, "a")
        assert starts(room, "a") == 2
    said = events(log_lines)
    assert said.count(AGAIN) == 1
    assert not [line for line in said if "Model failed" in line]


async def test_others_come_beside_it_again_when_it_was_good(
    autojump_clock: MockClock, room: FakeRoom
) -> None:
    """Only the start itself has the whole device."""
    room.gpus = {"GPU-aa": 24.0}
    room.takes = {"a": Takes(gpu=12), "b": Takes(gpu=13), "c": Takes(gpu=10)}
    guesses = {"a": 2, "b": 13, "c": 10}
    models = {name: served(name, memory={"gpu": size}) for name, size in guesses.items()}
    async with opened(room, written(models, {})) as supervisor:
        await use(supervisor, "b", 3)
        await use(supervisor, "a", 3)
        assert starts(room, "a") == 2
        await use(supervisor, "c")
        assert [state(supervisor, name) for name in "ac"] == [State.READY, State.READY]


async def test_a_start_that_lacks_memory_with_all_there_is_fails_for_good(
    autojump_clock: MockClock, room: FakeRoom, log_lines: LogLines
) -> None:
    """llamadoze tries once more; then the request fails, and the next one waits as usual."""
    async with opened(room, pair(room, guessed=10, taken=30)) as supervisor:
        with pytest.raises(ModelFailed, match="out of memory"):
            await use(supervisor, "a")
        assert starts(room, "a") == 2
        assert supervisor.servers["a"].backoff.failures == 1
        assert state(supervisor, "a") is State.FAILED
        assert not footprint(supervisor, "a").is_short
        await trio.sleep(60)
        await use(supervisor, "b")
        with pytest.raises(ModelFailed):
            await use(supervisor, "a")
    said = events(log_lines)
    assert said.count(AGAIN) == 1
    assert len([line for line in said if "lacked memory even with all there is" in line]) == 1
    assert len([line for line in said if "<a> Model failed" in line]) == 2


async def test_a_start_that_fails_for_another_reason_is_not_made_again(
    autojump_clock: MockClock, room: FakeRoom
) -> None:
    """Other rules, which know nothing of memory, would start it again without the sleepers."""
    room.broken.add("serve a")
    async with opened(room, pair(room, guessed=10, taken=5)) as supervisor:
        await use(supervisor, "b")
        await supervisor.sleep("b")
        with pytest.raises(ModelFailed, match="exited with status 1"):
            await use(supervisor, "a")
        assert starts(room, "a") == 1
        assert state(supervisor, "b") is State.ASLEEP
        assert footprint(supervisor, "a").gpus == (10 * GIB,)


async def test_a_wake_that_lacks_memory_becomes_a_start_with_all_there_is(
    autojump_clock: MockClock, room: FakeRoom, log_lines: LogLines
) -> None:
    """The sleeper beside it is stopped, and what is known was raised by a quarter."""
    async with opened(room, pair(room, guessed=12, taken=12)) as supervisor:
        await use(supervisor, "a", 3)
        await supervisor.sleep("a")
        await use(supervisor, "b", 3)
        await supervisor.sleep("b")
        await trio.sleep(1)
        room.short.add("sleep 2")
        await use(supervisor, "a")
        assert starts(room, "a") == 2
        assert state(supervisor, "b") is State.STOPPED
        assert footprint(supervisor, "a").gpus == (15 * GIB,)
    assert events(log_lines).count(AGAIN) == 1


async def test_a_server_that_dies_of_a_wake_without_memory_is_started_with_all_there_is(
    autojump_clock: MockClock, room: FakeRoom, log_lines: LogLines
) -> None:
    """Most servers die when a wake lacks memory."""
    async with opened(room, pair(room, guessed=12, taken=12)) as supervisor:
        await use(supervisor, "a", 3)
        await supervisor.sleep("a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use, supervisor, "a")
            await supervisor.servers["a"].reached(frozenset({State.WAKING}))
            supervisor.servers["a"].output.write(b"CUDA error: out of memory\n")
            room.of("serve", "a").exit(1)
        assert starts(room, "a") == 2
        assert footprint(supervisor, "a").gpus == (15 * GIB,)
        assert supervisor.servers["a"].backoff.failures == 0
    assert events(log_lines).count(AGAIN) == 1


async def test_a_wake_that_fails_for_another_reason_raises_nothing(
    autojump_clock: MockClock, room: FakeRoom
) -> None:
    """The model is started anew beside the sleepers."""
    async with opened(room, pair(room, guessed=12, taken=12)) as supervisor:
        await use(supervisor, "b", 3)
        await supervisor.sleep("b")
        await use(supervisor, "a", 3)
        await supervisor.sleep("a")
        room.broken.add("sleep 2")
        await use(supervisor, "a")
        assert starts(room, "a") == 2
        assert state(supervisor, "b") is State.ASLEEP
        assert footprint(supervisor, "a").gpus == (12 * GIB,)


async def test_a_sleep_that_lacks_host_memory_says_nothing_of_the_gpu(
    autojump_clock: MockClock, room: FakeRoom
) -> None:
    """The server had no room there for its weights; it is stopped, and starts as before."""
    async with opened(room, pair(room, guessed=20, taken=20)) as supervisor:
        await use(supervisor, "a", 3)
        room.short.add("sleep 1")
        await use(supervisor, "b")
        assert state(supervisor, "a") is State.STOPPED
        assert footprint(supervisor, "a").gpus == (20 * GIB,)
        assert not footprint(supervisor, "a").is_short


@pytest.mark.parametrize(
    "line",
    [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
        "CUDA error: out of memory",
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 4096.00 MiB on device 0: "
        "cudaMalloc failed: out of memory",
        "llama_kv_cache_init: failed to allocate buffer for kv cache",
        "vk::Device::allocateMemory: ErrorOutOfDeviceMemory, alloc_buffer failed",
        "ValueError: No available memory for the cache blocks.",
        "ValueError: Free memory on device (3.1/23.6 GiB) on startup is less than desired GPU "
        "memory utilization (0.9, 21.3 GiB).",
        "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.",
        "terminate called after throwing an instance of 'std::bad_alloc'",
        "hipErrorOutOfMemory",
        "process was ended by SIGKILL while starting",
    ],
)
def test_what_servers_say_of_too_little_memory_is_known(line: str) -> None:
    """Each server has its own words for it."""
    assert SHORT_OF_MEMORY.search(line)


@pytest.mark.parametrize(
    "line",
    [
        "error: unknown argument: --ctx",
        "gguf_init_from_file: failed to open GGUF file",
        "INFO: Available KV cache memory: 3.2 GiB",
        "allocated 4096 MiB on device 0",
        "OSError: [Errno 98] Address already in use",
    ],
)
def test_what_else_they_say_is_none_of_it(line: str) -> None:
    """llamadoze does not repeat a start that fails with such words."""
    assert not SHORT_OF_MEMORY.search(line)
