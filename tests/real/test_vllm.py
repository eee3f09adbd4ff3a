"""The preset ``vllm`` against a real vLLM on a CPU, where vLLM has all routes and frees nothing.

``make test-vllm`` installs vLLM and runs this. LLAMADOZE_VLLM is the Python that has vLLM.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests.proxy.daemon import stub
from tests.real.huggingface import write_model
from tests.system.daemon import Process, started, write

PYTHON = os.environ.get("LLAMADOZE_VLLM", "")
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not PYTHON, reason="LLAMADOZE_VLLM names no Python with vLLM"),
]
ENVIRONMENT = ["HF_HUB_OFFLINE=1", "VLLM_NO_USAGE_STATS=1", "VLLM_CPU_KVCACHE_SPACE=1"]
DEV = "VLLM_SERVER_DEV_MODE=1"
LENGTH = 2048  # tokens that the model has room for
TOKENS = LENGTH - 100  # of a stream that must not end too early, however fast the machine is


def vllm(model: Path, *env: str, **keys: Any) -> dict[str, Any]:
    """Return a model that vLLM serves; with --enable-sleep-mode it would not start on a CPU."""
    command = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    options = "--host 127.0.0.1 --port ${PORT} --served-model-name tiny"
    return {
        "cmd": f"{' '.join(command)} {options} --max-model-len {LENGTH} --enforce-eager",
        "proxy": "http://127.0.0.1:${PORT}",
        "env": [*ENVIRONMENT, *env],
        "useModelName": "tiny",
        "readyTimeout": 300,
        **keys,
    }


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("vllm")
    write_model(folder / "tiny")
    tiny = folder / "tiny"
    models = {
        "level1": vllm(tiny, DEV, sleep="vllm", verify={"canary": True}),
        "level2": vllm(tiny, DEV, sleep="vllm-level2"),
        "proved": vllm(tiny, DEV, sleep="vllm", verify={"hostMemory": True, "timeout": 1}),
        "nodev": vllm(tiny, sleep="vllm"),
        "other": stub(),
    }
    with started("--config", write(folder, models=models, maxSleepFailures=1)) as running:
        yield running


def served(daemon: Process, model: str) -> int:
    """Send a request to a model; return its pid."""
    status, answer = daemon.chat(model)
    assert status == 200, answer
    pid = daemon.running()[model]["pid"]
    assert isinstance(pid, int)
    return pid


def ask(daemon: Process, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """Send a request to vLLM itself, past the daemon."""
    port = int(daemon.running()["level1"]["proxy"].rpartition(":")[2])
    return Process(daemon.process, port).ask(method, path, body)


def is_sleeping(daemon: Process) -> bool:
    return bool(ask(daemon, "GET", "/is_sleeping")[1]["is_sleeping"])


@pytest.fixture(autouse=True)
def left_awake(daemon: Process) -> Iterator[None]:
    """Wake vLLM if a test has put it to sleep past the daemon; the next test would wait for it."""
    yield
    row = daemon.running().get("level1")
    if row and row["state"] == "ready" and is_sleeping(daemon):
        ask(daemon, "POST", "/wake_up")


class Stream(threading.Thread):
    """A streamed chat, read as it comes: as many tokens as the model has room for."""

    def __init__(self, port: int, model: str) -> None:
        super().__init__(daemon=True)
        chat = {"model": model, "max_tokens": TOKENS, "ignore_eos": True, "stream": True}
        body = json.dumps(chat | {"messages": [{"role": "user", "content": "hi"}]}).encode()
        headers = {"Content-Type": "application/json"}
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        self.request = Request(url, body, headers)
        self.text = b""
        self.has_begun, self.is_over = threading.Event(), threading.Event()

    def run(self) -> None:
        with urlopen(self.request, timeout=120) as reply:  # noqa: S310 -- on this machine
            for line in reply:
                self.text += line
                if b'"content":"' in line:
                    self.has_begun.set()
        self.is_over.set()

    def begin(self) -> None:
        """Start the stream and return after its first word, long before its last."""
        self.start()
        assert self.has_begun.wait(60)


def test_a_swap_puts_vllm_to_sleep_and_wakes_the_same_process(daemon: Process) -> None:
    """The preset's steps and questions work, and the token after the wake is the same as before."""
    first = served(daemon, "level1")
    served(daemon, "other")
    assert daemon.running()["level1"]["state"] == "asleep"
    assert is_sleeping(daemon)
    assert served(daemon, "level1") == first
    assert not is_sleeping(daemon)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_levels_and_repetition_are_answered_as_the_preset_expects(
    daemon: Process, level: int
) -> None:
    """A second sleep or a second wake in a row is no error, at any level."""
    served(daemon, "level1")
    for _ in range(2):
        assert ask(daemon, "POST", f"/sleep?level={level}")[0] == 200
        assert is_sleeping(daemon)
    for _ in range(2):
        assert ask(daemon, "POST", "/wake_up")[0] == 200
        assert not is_sleeping(daemon)


def test_it_sleeps_until_all_tags_are_awake(daemon: Process) -> None:
    """Until then vLLM says that it sleeps, so the preset's question detects a half wake."""
    served(daemon, "level1")
    ask(daemon, "POST", "/sleep?level=2")
    ask(daemon, "POST", "/wake_up?tags=weights")
    assert is_sleeping(daemon)
    ask(daemon, "POST", "/wake_up?tags=kv_cache")
    assert not is_sleeping(daemon)


def test_a_request_past_the_daemon_hangs_while_it_sleeps(daemon: Process) -> None:
    """The daemon must hold requests back, because a health check does not show that vLLM sleeps."""
    served(daemon, "level1")
    ask(daemon, "POST", "/sleep?level=1")
    answers: list[int] = []
    chat = {"model": "tiny", "max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]}

    def hang() -> None:
        answers.append(ask(daemon, "POST", "/v1/chat/completions", chat)[0])

    waiting = threading.Thread(target=hang)
    waiting.start()
    time.sleep(1)
    assert answers == []
    assert ask(daemon, "GET", "/health")[0] == 200
    ask(daemon, "POST", "/wake_up")
    waiting.join(30)
    assert answers == [200]


@pytest.mark.parametrize("mode", ["abort", "wait", "keep"])
def test_the_modes_do_to_a_running_stream_what_they_say(daemon: Process, mode: str) -> None:
    """``abort``, the default, ends a stream at once, so the daemon drains before a sleep."""
    served(daemon, "level1")
    stream = Stream(int(daemon.running()["level1"]["proxy"].rpartition(":")[2]), "tiny")
    stream.begin()
    assert ask(daemon, "POST", f"/sleep?level=1&mode={mode}")[0] == 200
    if mode == "keep":
        assert not stream.is_over.wait(0.5)
    ask(daemon, "POST", "/wake_up")
    assert stream.is_over.wait(60)
    assert stream.text.rstrip().endswith(b"data: [DONE]")
    assert (b'"finish_reason":"abort"' in stream.text) is (mode == "abort")


def test_a_stream_through_the_daemon_is_whole_before_vllm_sleeps(daemon: Process) -> None:
    """A request for another model meanwhile does not cut the stream."""
    served(daemon, "level1")
    stream = Stream(daemon.port, "level1")
    stream.begin()
    served(daemon, "other")
    assert stream.is_over.wait(60)
    assert b'"finish_reason":"length"' in stream.text
    assert stream.text.rstrip().endswith(b"data: [DONE]")
    assert daemon.running()["level1"]["state"] == "asleep"


def test_level_2_wakes_in_the_right_order_with_its_weights(daemon: Process) -> None:
    """The process stays the same, and so does the canary's token."""
    first = served(daemon, "level2")
    served(daemon, "other")
    assert daemon.running()["level2"]["state"] == "asleep"
    assert served(daemon, "level2") == first


def test_memory_that_vllm_does_not_free_on_a_cpu_is_noticed(daemon: Process) -> None:
    """vLLM answers 200 and says that it sleeps but keeps its memory, so llamadoze stops it."""
    first = served(daemon, "proved")
    served(daemon, "other")
    assert daemon.running().get("proved", {"state": "stopped"})["state"] == "stopped"
    assert daemon.said("<proved> the model still holds")
    assert daemon.said("<proved> Sleep is switched off after a failure")
    assert served(daemon, "proved") != first


def test_without_its_development_mode_the_failure_names_the_route(daemon: Process) -> None:
    """The log names the route that answered 404, which curl alone would have taken for a sleep."""
    served(daemon, "nodev")
    served(daemon, "other")
    assert "nodev" not in daemon.running()
    assert daemon.said("<nodev> sleep (POST /sleep?level=1) answered 404")
