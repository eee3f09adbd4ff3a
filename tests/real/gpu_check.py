"""Check llamadoze's sleep on a real GPU, and print one report: ``make gpu-check``.

This module owns the parts of the check, and what counts as good in each. The check ends within
eight minutes and reports what it has by then. Its models are those of `torch_server`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import attrs

from supervisor.processes.memory import tree_of
from supervisor.room.devices import look_at_all
from supervisor.room.nvml import why_not_known
from tests.system.daemon import Process, started, write

GIB = 1 << 30
MIB = 1 << 20
GB = 1e9
LIMIT = 440  # seconds for all parts; stopping the models takes the rest of the eight minutes
LONGEST_START = 240  # seconds: the first import of torch from a cold disk is slow
LONGEST_ANSWER = LONGEST_START + 60
COMMAND = (sys.executable, "-m", "proxy")
LEFT_AT_MOST = 2.0  # GiB: a CUDA context, its libraries, and what torch keeps
CHAT: dict[str, Any] = {
    "messages": [{"role": "user", "content": "tell me of the night"}],
    "max_tokens": 16,
    "temperature": 0,
}


class TimeIsOver(Exception):
    """The check has used all of its time."""


@attrs.define
class Report:
    """The findings, as Markdown; `bad` counts those that are not as they should be."""

    lines: list[str] = attrs.field(factory=list)
    bad: int = 0

    def say(self, *lines: str) -> None:
        self.lines += lines

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self.say(_row(head), _row(["---"] * len(head)), *map(_row, rows), "")

    def judge(self, is_good: bool, text: str) -> None:
        self.bad += not is_good
        self.say(f"- {'good' if is_good else '**BAD**'}: {text}")

    def show(self) -> None:
        """Print the lines since the last call, so that they are out, whatever ends the check."""
        print("\n".join(self.lines), flush=True)
        self.lines.clear()

    def conclude(self) -> None:
        self.say("", f"Result: {'all good' if not self.bad else f'{self.bad} bad'}.")
        self.show()


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


@attrs.define
class Check:
    """The daemon with its models, and the report about them."""

    report: Report
    daemon: Process
    server: Server
    gigabytes: float
    cycles: int

    def ask(self, method: str, path: str, body: object = None) -> Any:
        status, answer = self.daemon.ask(method, path, body, LONGEST_ANSWER)
        if status != 200:
            raise RuntimeError(f"{method} {path} answered {status}: {answer}")
        return answer

    def say(self, model: str) -> str:
        """Return a model's answer; the question is always the same."""
        answer = self.ask("POST", "/v1/chat/completions", {"model": model, **CHAT})
        return str(answer["choices"][0]["message"]["content"])

    def first_token(self, model: str) -> float:
        """Return the seconds from a request to the first token of its stream."""
        body = json.dumps({"model": model, **CHAT, "stream": True}).encode()
        url = f"http://127.0.0.1:{self.daemon.port}/v1/chat/completions"
        headers = {"Content-Type": "application/json"}
        began = time.monotonic()
        with urlopen(Request(url, body, headers), timeout=300) as reply:
            reply.readline()
            took = time.monotonic() - began
            reply.read()
        return took

    def pid(self, model: str) -> int:
        return int(self.daemon.running()[model]["pid"])

    def held(self, pid: int) -> int:
        """Return the bytes of GPU memory that a model holds, as llamadoze measures it."""
        pids = tree_of(pid)
        return look_at_all(pids).held_by(pids) or 0

    def facts(self, model: str) -> dict[str, float]:
        """Return the bytes of a model's weights, and the seconds of its last sleep and wake."""
        port = int(self.daemon.running()[model]["proxy"].rpartition(":")[2])
        _, timings = Process(self.daemon.process, port).ask("GET", "/timings")
        return dict(timings)

    def told(self, model: str, key: str) -> list[dict[str, Any]]:
        """Return the log's lines of a model that have a certain key."""
        lines = self.daemon.log()
        return [line for line in lines if line.get("model") == model and key in line]

    def sleep_and_wake(self, model: str) -> tuple[float, float, int]:
        """Return the seconds of the sleep, those of the wake, and what the sleeping model held."""
        pid, began = self.pid(model), time.monotonic()
        self.ask("POST", f"/api/models/sleep/{model}")
        slept, held = time.monotonic(), self.held(pid)
        woken_from = time.monotonic()
        self.ask("POST", f"/api/models/wake/{model}")
        return slept - began, time.monotonic() - woken_from, held


def machine(report: Report) -> float:
    """Report what the machine has; return the memory of its GPU in GB."""
    try:
        import pynvml

        pynvml.nvmlInit()
        device = pynvml.nvmlDeviceGetHandleByIndex(0)
        name, driver = pynvml.nvmlDeviceGetName(device), pynvml.nvmlSystemGetDriverVersion()
        total = pynvml.nvmlDeviceGetMemoryInfo(device).total
    except Exception as error:  # whatever NVML or its absence raises, there is no GPU to check
        raise SystemExit(f"gpu-check needs an NVIDIA GPU: {why_not_known() or error}") from None
    report.say("# GPU check", "")
    rows = [
        ("GPU", f"{name}, {total / GIB:.1f} GiB"),
        ("driver", f"{driver}"),
        ("kernel", platform.release()),
        ("Python", platform.python_version()),
        *((name, _version(name)) for name in ("torch", "transformers", "nvidia-ml-py", "trio")),
    ]
    report.table(("what", "version"), rows)
    return float(total / GB)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"


@attrs.frozen
class Server:
    """How the model servers are started."""

    engine: str
    device: str

    def model(self, size: float, seed: int, *more: str, **keys: object) -> dict[str, object]:
        """Return a model of `size` GB, as the configuration file has it."""
        options = f"--gigabytes {round(size, 4)} --seed {seed}"
        how = f"--engine {self.engine} --device {self.device} {' '.join(more)}"
        program = f"{sys.executable} -m tests.real.torch_server --port ${{PORT}}"
        return {
            "cmd": f"{program} {options} {how}",
            "proxy": "http://127.0.0.1:${PORT}",
            "readyTimeout": LONGEST_START,
            "sleep": "vllm",
            "verify": {"canary": True, "timeout": 5},
            **keys,
        }


def configuration(folder: Path, gigabytes: float, server: Server) -> str:
    """Write the configuration of the models and return the file."""
    model = server.model
    models = {
        "large": model(gigabytes, 1),
        "second": model(gigabytes / 4, 2, sleep="vllm-level2"),
        "left": model(gigabytes / 2, 3, verify={"canary": False}),
        "right": model(gigabytes / 2, 4, verify={"canary": False}),
        "liar": model(gigabytes / 8, 5, "--lies"),
        "frozen": model(gigabytes / 2, 6, "--never-sleeps", sleep="cuda-checkpoint"),
    }
    return write(folder, models=models, maxSleepFailures=1)


def figures(check: Check) -> None:
    """Check that llamadoze measures the memory that nvidia-smi shows for the same processes."""
    check.say("large")
    pids = tree_of(check.pid("large"))
    if (ours := look_at_all(pids).held_by(pids)) is None:
        check.report.judge(False, "NVML tells nothing of single processes on this machine")
        return
    command = ["nvidia-smi", "--query-compute-apps=pid,used_memory"]
    command += ["--format=csv,noheader,nounits"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    rows = [tuple(map(str.strip, line.split(","))) for line in lines if line.strip()]
    theirs = sum(int(held) for pid, held in rows if int(pid) in pids)
    text = f"llamadoze measures {ours / MIB:.0f} MiB, nvidia-smi shows {theirs} MiB"
    check.report.judge(abs(ours / MIB - theirs) <= len(pids), text)
    size = check.facts("large")["bytes"]
    text = f"a model of {size / GIB:.2f} GiB holds {ours / GIB:.2f} GiB"
    check.report.judge(ours > size, text)


def cycles(check: Check) -> None:
    """Repeat sleep and wake: what each sleep frees and leaves, and how fast both are."""
    before, rows = check.say("large"), []
    for number in range(1, check.cycles + 1):
        sleep, wake, held = check.sleep_and_wake("large")
        own, freed = check.facts("large"), check.told("large", "freed_bytes")[-1]
        moved = freed["freed_bytes"] / GB
        seconds = (f"{one:.2f}" for one in (sleep, own["sleep"], wake, own["wake"]))
        sizes = (f"{freed['freed_bytes'] / GIB:.2f}", f"{held / GIB:.2f}")
        speeds = (f"{moved / own['sleep']:.1f}", f"{moved / own['wake']:.1f}")
        rows.append([f"{number}", *seconds, *sizes, *speeds])
        _same(check, "large", before)
    head = ["cycle", "sleep s", "its own", "wake s", "its own", "freed GiB", "left GiB"]
    check.report.table([*head, "GB/s out", "GB/s in"], rows)
    told = check.told("large", "freed_bytes")
    least = min(line["freed_bytes"] for line in told)
    text = f"each sleep freed {least / GIB:.2f} GiB or more"
    check.report.judge(least > check.facts("large")["bytes"] * 0.99, text)
    most = max(line["left_bytes"] for line in told)
    check.report.judge(most < LEFT_AT_MOST * GIB, f"each left {most / GIB:.2f} GiB or less")
    trend = told[-1]["trend_bytes"]
    check.report.judge(trend < 8 * MIB, f"each left {trend / MIB:+.1f} MiB more than the last")


def level_2(check: Check) -> None:
    """Check that weights that a sleep has dropped are the same after the wake."""
    before = check.say("second")
    for _ in range(2):
        sleep, wake, held = check.sleep_and_wake("second")
        check.report.say(f"- sleep {sleep:.2f} s, wake {wake:.2f} s, left {held / GIB:.2f} GiB")
        _same(check, "second", before)
    check.report.judge(True, "the same words after each wake")


def _same(check: Check, model: str, before: str) -> None:
    if (after := check.say(model)) != before:
        raise RuntimeError(f"{model} said {before!r} before its sleep and {after!r} after its wake")


def turns(check: Check) -> None:
    """Swap two models: how long a request waits beyond the servers' own sleep and wake."""
    check.say("left")
    awake = min(check.first_token("left") for _ in range(3))
    check.say("right")
    others = {"left": "right", "right": "left"}
    rows, added = [], []
    for model in ("left", "right") * 3:
        whole = check.first_token(model)
        sleep = check.facts(others[model])["sleep"]
        wake = check.facts(model)["wake"]
        added.append(whole - sleep - wake - awake)
        cells = (whole, sleep, wake, awake, added[-1])
        rows.append([model, *(f"{seconds * 1000:.0f}" for seconds in cells)])
    head = ["request for", "first token ms", "the other's sleep", "its wake", "a token awake"]
    check.report.table([*head, "llamadoze"], rows)
    median = statistics.median(added) * 1000
    check.report.judge(median < 500, f"llamadoze adds {median:.0f} ms at the median")


def lies(check: Check) -> None:
    """Check that a server that says that it sleeps but keeps its memory is stopped."""
    check.say("liar")
    pid = check.pid("liar")
    status, _ = check.daemon.ask("POST", "/api/models/sleep/liar")
    found = check.daemon.said("<liar> the model still holds")
    check.report.judge(
        status >= 400 and found, "the lie is found: the model still holds its memory"
    )
    is_gone = "liar" not in check.daemon.running() and not Path(f"/proc/{pid}").exists()
    check.report.judge(is_gone, "the model is stopped, and its process is gone")


def checkpoints(check: Check) -> None:
    """Check that the driver suspends a server that cannot sleep, and its answers stay the same."""
    before, pid = check.say("frozen"), check.pid("frozen")
    awake, rows = check.held(pid), []
    for number in range(1, 4):
        sleep, wake, held = check.sleep_and_wake("frozen")
        freed = (awake - held) / GB
        cells = (f"{one:.2f}" for one in (sleep, wake, freed, held / GB))
        rows.append([f"{number}", *cells, f"{freed / sleep:.1f}", f"{freed / wake:.1f}"])
        _same(check, "frozen", before)
    head = ["cycle", "sleep s", "wake s", "freed GB", "left GB", "GB/s out", "GB/s in"]
    check.report.table(head, rows)
    check.report.judge(check.pid("frozen") == pid, "the same words from the same process")
    check.report.judge(held < awake / 100, f"{held / MIB:.0f} MiB stay on the GPU")


def rooms(check: Check) -> None:
    """Check that two of three models run together without a swap, and the third needs one."""
    check.say("large")
    beside = check.held(check.pid("large")) - check.facts("large")["bytes"]  # its CUDA context
    check.ask("POST", "/api/models/unload/large")
    size = check.gigabytes / 4
    each = int(size * GB + beside)
    # Room for two of them awake and what the third leaves asleep, but not for three awake.
    space = 2 * each + int(beside) + (each - int(beside)) // 2
    guess = {"memory": {"gpu": round(each * 1.02 / GIB, 6)}, "verify": {"canary": False}}
    models = {name: check.server.model(size, seed, **guess) for seed, name in enumerate("xyz", 7)}
    reserve = (_gpu_memory() - space) // MIB
    router = {"use": "memory", "settings": {"memory": {"gpus": [0], "reserve": reserve}}}
    with tempfile.TemporaryDirectory() as folder:
        file = write(Path(folder), models=models, routing={"router": router})
        with started("--config", file, "--state-dir", f"{folder}/state", command=COMMAND) as daemon:
            _three(attrs.evolve(check, daemon=daemon), space)


def _gpu_memory() -> int:
    import pynvml

    return int(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).total)


def _three(check: Check, space: int) -> None:
    for name in "xyxyxy":
        check.say(name)
    swaps = sum("Makes room" in line for line in check.daemon.events())
    pids = {name: check.pid(name) for name in "xy"}
    text = f"x and y in turns, three times: {swaps} swaps, "
    held = sum(map(check.held, pids.values()))
    text += f"they hold {held / GIB:.2f} of {space / GIB:.2f} GiB"
    check.report.judge(swaps == 0 and held <= space, text)
    began = time.monotonic()
    check.say("z")
    took, rows = time.monotonic() - began, check.daemon.running()
    asleep = [name for name, row in rows.items() if row["state"] == "asleep"]
    held = sum(check.held(int(row["pid"])) for row in rows.values())
    text = f"z came up after {took:.2f} s; asleep for it: {', '.join(asleep)}; "
    text += f"all three hold {held / GIB:.2f} of {space / GIB:.2f} GiB"
    check.report.judge(asleep == ["x"] and held <= space, text)
    seen = {name: _given(int(row["pid"])) for name, row in rows.items()}
    text = f"each was given its GPU by UUID: {', '.join(sorted(set(seen.values())))}"
    check.report.judge(all(one.startswith("GPU-") for one in seen.values()), text)


def _given(pid: int) -> str:
    """Return the GPUs that a process was given."""
    for entry in Path(f"/proc/{pid}/environ").read_text(errors="replace").split("\0"):
        if entry.startswith("CUDA_VISIBLE_DEVICES="):
            return entry.partition("=")[2]
    return "none"


Part = tuple[str, Callable[[Check], None], Sequence[str]]
PARTS: Sequence[Part] = (
    ("NVML against nvidia-smi", figures, ()),
    ("Cycles of sleep and wake, level 1", cycles, ("large",)),
    ("Level 2", level_2, ("second",)),
    ("Two models in turns", turns, ("left", "right")),
    ("A sleep that lies", lies, ()),
    ("Sleep by the driver's checkpoint", checkpoints, ("frozen",)),
    ("Three models placed by memory", rooms, ("large",)),
)


def play(check: Check, part: Part) -> None:
    """Run one part; the report tells what goes wrong in it, and the other parts still run."""
    title, run, models = part
    check.report.say("", f"## {title}", "")
    began = time.monotonic()
    try:
        run(check)
    except TimeIsOver:
        raise
    except Exception as error:  # the report tells of it, whatever it is
        check.report.judge(False, f"{error!r}")
        lines = [f"    {line}" for line in check.daemon.events()[-8:]]
        check.report.say("", "The daemon's last lines:", "", *lines)
    for model in models:
        with contextlib.suppress(OSError):  # if the daemon is gone, the report says so
            check.daemon.ask("POST", f"/api/models/unload/{model}")
    check.report.say("", f"({time.monotonic() - began:.0f} s)")
    check.report.show()


@contextlib.contextmanager
def within(seconds: int) -> Iterator[None]:
    """Raise TimeIsOver in the block after so many seconds."""

    def ring(*_: object) -> None:
        raise TimeIsOver

    signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def main() -> int:
    """Run all parts, print the report, and return 1 if something was bad."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, help="of the largest model (default: 16)")
    parser.add_argument("--cycles", type=int, default=10)
    parser.add_argument("--engine", default="torch")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--limit", type=int, default=LIMIT, help="seconds")
    options = parser.parse_args()
    report = Report()
    total = machine(report)
    gigabytes = options.gigabytes or min(16.0, total * 0.6)
    try:
        with within(options.limit), tempfile.TemporaryDirectory() as folder:
            server = Server(options.engine, options.device)
            file = configuration(Path(folder), gigabytes, server)
            state = ("--state-dir", f"{folder}/state")
            with started("--config", file, *state, command=COMMAND) as daemon:
                check = Check(report, daemon, server, gigabytes, options.cycles)
                for part in PARTS:
                    play(check, part)
    except TimeIsOver:
        report.judge(False, f"the time was over after {options.limit} s")
    except Exception as error:  # the daemon did not even start
        report.judge(False, f"{error!r}")
    finally:
        report.conclude()
    return 1 if report.bad else 0


if __name__ == "__main__":
    sys.exit(main())
