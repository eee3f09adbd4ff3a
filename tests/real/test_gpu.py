"""NVML on a real GPU: a real vLLM's memory falls with its sleep and returns with its wake.

``make test-gpu VLLM_PYTHON=...`` runs this. Without a GPU, or without a vLLM for it, the test is
skipped.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from supervisor.processes.memory import tree_of
from supervisor.room import nvml
from supervisor.room.devices import look_at_all
from tests.proxy.daemon import stub
from tests.real.huggingface import write_model
from tests.system.daemon import started, wait_for, write

PYTHON = os.environ.get("LLAMADOZE_VLLM", "")
MIB = 1 << 20
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not nvml.gpus(), reason="no NVIDIA GPU: NVML is not there"),
    pytest.mark.skipif(not PYTHON, reason="VLLM_PYTHON names no Python with vLLM"),
]


def held_by(pid: int) -> int:
    """Return the bytes of GPU memory that a process tree holds."""
    pids = tree_of(pid)
    return look_at_all(pids).held_by(pids) or 0


@pytest.mark.parametrize("preset", ["vllm", "vllm-level2"])
def test_gpu_memory_falls_with_a_sleep_and_returns_with_a_wake(preset: str, tmp_path: Path) -> None:
    """NVML shows this for the model's process tree, and the daemon reports the same."""
    write_model(tmp_path / "tiny")
    options = "--port ${PORT} --served-model-name tiny --max-model-len 2048 --enable-sleep-mode"
    command = f"{PYTHON} -m vllm.entrypoints.openai.api_server --model {tmp_path / 'tiny'}"
    model: dict[str, Any] = {
        "cmd": f"{command} {options} --gpu-memory-utilization 0.3 --enforce-eager",
        "proxy": "http://127.0.0.1:${PORT}",
        "env": ["HF_HUB_OFFLINE=1", "VLLM_NO_USAGE_STATS=1", "VLLM_SERVER_DEV_MODE=1"],
        "useModelName": "tiny",
        "readyTimeout": 600,
        "sleep": preset,
    }
    with started("--config", write(tmp_path, models={"a": model, "b": stub()})) as running:
        assert running.chat("a")[0] == 200
        pid = running.running()["a"]["pid"]
        awake = held_by(pid)
        assert awake > 1024 * MIB
        began = time.monotonic()
        assert running.chat("b")[0] == 200
        asleep = held_by(pid)
        print(f"{preset}: {awake / MIB:.0f} MiB, asleep {asleep / MIB:.0f} MiB, ", end="")
        print(f"swap {time.monotonic() - began:.2f} s")
        assert asleep < awake / 2
        row = running.running()["a"]
        assert row["state"] == "asleep"
        assert row["sleep"]["memory"]["gpu"]["left"] == pytest.approx(asleep, rel=0.2)
        assert running.chat("a")[0] == 200
        assert running.running()["a"]["pid"] == pid
        wait_for(lambda: held_by(pid) > awake * 0.8)
