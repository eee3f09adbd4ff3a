"""Models yield GPU memory to other programs: real processes on the stand-in for a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.peers.client import chat
from tests.peers.nvml import pynvml as stand_in
from tests.proxy.daemon import Daemon, daemon, stub
from tests.supervisor.room.gpus import made_up_nvml

GIB = 1 << 30
YIELDS: dict[str, Any] = {"yield": True}
Hold = Callable[[int], object]


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hold]:
    """Return a function that lets another program hold so many GiB of a GPU of 8 GiB."""
    monkeypatch.setenv("CUDA_STAND_IN", str(tmp_path))
    monkeypatch.setenv("CUDA_STAND_IN_GPUS", "8")
    for name, seconds in (("LOOKS_EVERY", 0.1), ("IDLE_FOR", 0.2), ("CALM_FOR", 0.5)):
        monkeypatch.setattr(f"supervisor.upkeep.yielding.{name}", seconds)
    with made_up_nvml(monkeypatch, stand_in):
        file = tmp_path / "stranger.0.bytes"
        yield lambda gib: file.write_text(f"{gib * GIB}")


async def until(running: Daemon, state: str) -> None:
    with trio.fail_after(10):
        while running.state("a") != state:
            await trio.sleep(0.02)


async def test_an_idle_model_sleeps_while_a_stranger_holds_its_memory(stranger: Hold) -> None:
    """The model answers meanwhile, sleeps again, and wakes when the other program has gone."""
    model = stub("--gpu", "5120", "--gpu-rest", "256", sleeps=True)
    async with daemon({"a": model}, **YIELDS) as running:
        assert (await chat(running.port, "a")).status == 200
        await trio.sleep(0.5)
        assert running.state("a") == "ready"
        stranger(4)
        await until(running, "asleep")
        assert (await chat(running.port, "a")).status == 200
        await until(running, "asleep")
        stranger(0)
        await until(running, "ready")


async def test_a_stranger_that_fits_beside_the_model_disturbs_nobody(stranger: Hold) -> None:
    """There is room for both, so the model stays ready."""
    async with daemon({"a": stub("--gpu", "5120", sleeps=True)}, **YIELDS) as running:
        await chat(running.port, "a")
        stranger(2)
        await trio.sleep(1)
        assert running.state("a") == "ready"
