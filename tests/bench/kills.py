"""Kills daemons three hundred times, and checks what becomes of their models' processes.

``make kills`` runs it. Each daemon has ten models, and is killed while these load, fall asleep,
wake, stop or are adopted. Sometimes processes of models are killed as well. The next daemon must
take over each process or container that survives, or end it. ``--seed`` determines the requests
and the times of the kills, but not the speed of the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import psutil

from supervisor.processes.census import is_alive, start_of
from supervisor.processes.kin import kill_all
from supervisor.succession.records import read_records
from tests.bench.soak import contained
from tests.conftest import RUN, stub_command
from tests.peers.engine import Engine, engine_in
from tests.ports import free_port
from tests.system.daemon import LLAMADOZE, Process, wait_for, write

STUBBORN = Path(__file__).parents[1] / "peers/stubborn.py"
MARK = "LLAMADOZE_KILLS"
LONGEST = {  # seconds from the last request to the kill
    "loading": 0.6,
    "falling asleep": 0.4,
    "waking": 0.4,
    "stopping": 0.8,
    "adopting": 1.5,
}
BESIDE = {"nothing": 8, "one process": 2, "all processes": 1}
"""What is killed with a daemon, and its weight. The OOM killer kills one process, and a service
manager kills all of them. Neither kills a container."""
START = 30.0  # seconds until a daemon listens, after it has settled what it found
PATIENCE = 5.0  # seconds after that until everything is in its place
WISH = 5.0  # seconds that a request may take before the one that is cut
TOLD = 15  # lines of a log that are shown of a daemon that lost something
SERVED = {"starting", "ready", "sleepPending", "asleep", "waking", "stopping"}


@attrs.frozen
class Found:
    """A living process or container."""

    pid: int
    started: int
    what: str = attrs.field(eq=False)
    mark: str = attrs.field(eq=False)

    @property
    def lives(self) -> bool:
        return start_of(self.pid) == self.started and is_alive(self.pid)


def living(mark: str) -> set[Found]:
    """Return the living processes whose mark begins with this text."""
    begin, found = f"{MARK}={mark}".encode(), set()
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and begin in (folder / "environ").read_bytes():
                found.add(_found(int(folder.name)))
    return {one for one in found if one.lives}


def _found(pid: int) -> Found:
    folder = Path(f"/proc/{pid}")
    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    pairs = (folder / "environ").read_bytes().split(b"\0")
    marks = [pair.decode().partition("=")[2] for pair in pairs if pair.startswith(MARK.encode())]
    return Found(pid, start_of(pid) or 0, command, "".join(marks[:1]))


@attrs.define(eq=False)
class Tally:
    """What all lanes have counted."""

    done: Counter[str] = attrs.field(factory=Counter)
    states: Counter[str] = attrs.field(factory=Counter)
    processes: Counter[str] = attrs.field(factory=Counter)
    containers: Counter[str] = attrs.field(factory=Counter)
    wrongs: list[str] = attrs.field(factory=list)
    slowest: tuple[float, str] = (0.0, "")
    lock: threading.Lock = attrs.field(factory=threading.Lock)

    def killed(self, phase: str) -> None:
        with self.lock:
            self.done[phase] += 1
            if self.done.total() % 50 == 0:
                told = ", ".join(f"{name} {self.processes[name]}" for name in FATES)
                print(f"{self.done.total()} kills: {told}; {len(self.wrongs)} wrong", flush=True)

    def wrong(self, text: str) -> None:
        with self.lock:
            self.wrongs.append(text)
            print(f"WRONG: {text}", flush=True)


FATES = ("lived on", "taken over", "ended", "lost")


@attrs.define(eq=False)
class Lane:
    """One configuration, and its daemons one after the other."""

    number: int
    folder: Path
    engine: Engine
    seed: int
    alone: bool
    tally: Tally
    count: int = 0
    port: int = attrs.field(factory=lambda: free_port(1))
    start_port: int = attrs.field(factory=lambda: free_port(32))
    survivors: set[Found] = attrs.field(factory=set)
    contained: set[Found] = attrs.field(factory=set)
    last: str = "the first"
    began: float = 0.0
    daemon: Process = attrs.field(init=False)

    @property
    def mark(self) -> str:
        """The mark of the processes of all its daemons; the daemon's number follows."""
        return f"{RUN}.{self.number}."

    @property
    def adopts(self) -> bool:
        """Half of the daemons adopt processes: four in a row do, and the next four do not."""
        return self.count // 4 % 2 == 0

    def play(self, rounds: Iterator[int]) -> None:
        """Kill daemons while rounds are left, and end the last one."""
        try:
            self.start()
            for number in rounds:
                self.round(number)
                self.start()
            self.check()
            self.finish()
        except Exception as error:
            self.tally.wrong(f"{self.place()}: {error!r}\n{self.logs()}")
        finally:
            self.daemon.process.kill()
            self.daemon.process.wait()
            kill_all(one.pid for one in living(self.mark))

    def place(self) -> str:
        return f"seed {self.seed}, lane {self.number}, {self.last}"

    def start(self) -> None:
        """Start a daemon without waiting for it."""
        self.count += 1
        file = write(
            self.folder,
            models=models(),
            groups=GROUPS,
            startPort=self.start_port,
            unloadTimeout=2,
            adopt=self.adopts,
        )
        output = self.folder / f"{self.count}.log"
        arguments = ["--config", file, "--listen", f"127.0.0.1:{self.port}"]
        with output.open("wb") as log:
            process = subprocess.Popen(
                [LLAMADOZE, *arguments, "--state-dir", str(self.folder / "state")],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PATH": self.engine.path(), MARK: f"{self.mark}{self.count}"},
            )
        self.daemon, self.began = Process(process, self.port, output), time.monotonic()

    def round(self, number: int) -> None:
        """Bring a daemon to a random point, and kill it there."""
        chance = random.Random(f"{self.seed}.{number}")
        phase = chance.choice(list(LONGEST))
        if phase != "adopting":
            self.check()
            self.scene(chance)
            self.bring_to(phase, chance)
        time.sleep(chance.random() * LONGEST[phase])
        beside = "nothing" if self.alone else chance.choices(list(BESIDE), list(BESIDE.values()))[0]
        self.last = f"round {number} ({phase}, with {beside})"
        self.kill(beside, chance)
        self.tally.killed(phase)

    def scene(self, chance: random.Random) -> None:
        """Let clients send requests to some models, whatever their outcome."""
        for model in chance.sample(list(models()), chance.randint(2, 5)):
            self.begin("load", model)
        for verb in ("sleep", "unload"):
            if chance.random() < 0.2:
                self.begin(verb, chance.choice(SLEEPERS))
        time.sleep(chance.random())

    def bring_to(self, phase: str, chance: random.Random) -> None:
        """Begin the step that the kill cuts."""
        among = SLEEPERS if phase in ("falling asleep", "waking") else list(models())
        before = {"loading": [], "waking": ["load", "sleep"]}.get(phase, ["load"])
        verb = {"loading": "load", "falling asleep": "sleep", "waking": "wake"}.get(phase, "unload")
        model = chance.choice(among)
        for one in before:
            self.ask(one, model)
        self.begin(verb, model)

    def begin(self, verb: str, model: str) -> None:
        threading.Thread(target=self.ask, args=(verb, model), daemon=True).start()

    def ask(self, verb: str, model: str) -> None:
        """Send a client's or an operator's request; the daemon may be killed meanwhile."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            if verb == "load":
                body = {"model": model}
                self.daemon.ask("POST", "/v1/chat/completions", body, limit=WISH)
            else:
                self.daemon.ask("POST", f"/api/models/{verb}/{model}", limit=WISH)

    def kill(self, beside: str, chance: random.Random) -> None:
        """Kill the daemon and some of its processes; note what survives."""
        self.daemon.process.kill()
        self.daemon.process.wait()
        if beside != "nothing":
            found = sorted(living(self.mark), key=lambda one: one.pid)
            of_one = chance.sample(found, min(1, len(found)))
            kill_all(one.pid for one in (of_one if beside == "one process" else found))
        self.survivors |= living(self.mark)
        self.contained |= self.containers()
        records = read_records(self.folder / "state/state.json")
        self.tally.states.update(record.state for record in records)

    def containers(self) -> set[Found]:
        pairs = self.engine.containers().items()
        return {Found(pid, start_of(pid) or 0, name, "") for name, pid in pairs}

    def check(self) -> None:
        """Wait until the daemon has adopted or ended what earlier ones left; count the fates."""
        wait_for(lambda: self.daemon.said("Listening on") or self.has_ended(), START)
        assert not self.has_ended(), "the daemon does not start"
        took = time.monotonic() - self.began
        self.tally.slowest = max(self.tally.slowest, (took, f"{self.place()}, {self.count}.log"))
        deadline = time.monotonic() + PATIENCE
        while (lost := self.unaccounted()) and time.monotonic() < deadline:
            time.sleep(0.1)
        for one in lost:
            mark = one.mark.rpartition(".")[2] or "of the engine"
            text = f"{self.place()}: lost {one.pid} {one.what} ({mark}), now {self.count}"
            self.tally.wrong(f"{text}\n{self.logs()}")
        self.survivors |= {one for one in lost if one.mark}
        self.count_fates(self.tally.processes, self.survivors, lost)
        self.count_fates(self.tally.containers, self.contained, lost)
        self.survivors, self.contained = set(), set()

    def has_ended(self) -> bool:
        return self.daemon.process.poll() is not None

    def unaccounted(self) -> set[Found]:
        """Return what survives without belonging to the present daemon or being adopted by it."""
        earlier = {one for one in living(self.mark) if one.mark != f"{self.mark}{self.count}"}
        rows = self.daemon.running()
        served = {BOXES.get(name) for name, row in rows.items() if row["state"] in SERVED}
        named = {row["pid"] for row in rows.values()} if self.adopts else set()
        lost = {one for one in earlier if not named & {one.pid, *_above(one.pid)}}
        lost |= {one for one in self.containers() if one.what not in served or not self.adopts}
        return {one for one in lost if one.lives}

    def count_fates(self, fates: Counter[str], of: set[Found], lost: set[Found]) -> None:
        with self.tally.lock:
            fates["lived on"] += len(of)
            fates["lost"] += len(of & lost)
            fates["ended"] += sum(not one.lives for one in of)
            fates["taken over"] += sum(one.lives for one in of - lost)

    def finish(self) -> None:
        """End the last daemon as an operator does who wants everything to end."""
        self.daemon.end(signal.SIGINT, START)
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not living(self.mark) | self.containers(), PATIENCE)
        for one in living(self.mark) | self.containers():
            self.tally.wrong(f"{self.place()}: left at the end: {one.pid} {one.what}")

    def logs(self) -> str:
        """Return the last lines of this daemon and of the one before."""
        files = [self.folder / f"{count}.log" for count in (self.count - 1, self.count)]
        parts = [(file.name, file.read_text().splitlines()) for file in files if file.exists()]
        return "\n".join(f"  {name}: {line}" for name, text in parts for line in text[-TOLD:])


def _above(pid: int) -> set[int]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return {one.pid for one in psutil.Process(pid).parents()}
    return set()


SLEEPERS = ["sleeper", "slow-sleeper", "session", "box"]
BOXES = {"box": "one", "box-without-sleep": "two"}
GROUPS = {
    "together": {
        "swap": False,
        "exclusive": False,
        "members": ["plain", "sleeper", "session", "shell", "box", "slow", "stubborn"],
    },
    "in-turn": {
        "exclusive": False,
        "members": ["slow-sleeper", "box-without-sleep", "slow-to-listen"],
    },
}


def models() -> dict[str, dict[str, Any]]:
    """Return the ten models of a daemon."""
    slowly = '{"/sleep": {"delay": 0.2}, "/wake_up": {"delay": 0.2}}'
    plain = stub_command("--port", "${PORT}")
    sleeper = stub_command("--port", "${PORT}", "--faults", slowly)
    slow = stub_command("--port", "${PORT}", "--ready-after", "0.6")
    slowest = stub_command("--port", "${PORT}", "--ready-after", "3")  # longer than an inspection
    late = shlex.quote(f"sleep 0.5; exec {plain}")
    stubborn = shlex.join([sys.executable, "-I", "-S", str(STUBBORN), "0.7", "--port"])
    commands = {
        "plain": plain,
        "sleeper": sleeper,
        "slow-sleeper": stub_command(
            "--port", "${PORT}", "--ready-after", "0.4", "--faults", slowly
        ),
        "session": f"setsid -w {sleeper}",
        "shell": f"sh -c {shlex.quote(f'timeout 3600 {plain}; true')}",
        "box": contained(BOXES["box"], sleeper),
        "box-without-sleep": contained(BOXES["box-without-sleep"], slowest),
        "slow": slow,
        "slow-to-listen": f"sh -c {late}",
        "stubborn": f"{stubborn} ${{PORT}}",
    }
    return {
        name: {
            "cmd": command,
            "proxy": "http://127.0.0.1:${PORT}",
            **({"sleep": "vllm"} if name in SLEEPERS else {}),
        }
        for name, command in commands.items()
    }


def told(tally: Tally, seconds: float) -> str:
    """Return the summary table."""
    phases, states = (
        ", ".join(f"{name} {number}" for name, number in sorted(counts.items()))
        for counts in (tally.done, tally.states)
    )
    lines = [
        f"{tally.done.total()} kills in {seconds:.0f} s: {phases}",
        f"models at the kill: {states}",
        f"slowest start: {tally.slowest[0]:.1f} s ({tally.slowest[1]})",
        f"{'':12} {'processes':>10} {'containers':>10}",
    ]
    lines += [f"{name:12} {tally.processes[name]:10} {tally.containers[name]:10}" for name in FATES]
    return "\n".join([*lines, f"{len(tally.wrongs)} wrong"])


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Kill daemons, and look for their processes.")
    parser.add_argument("--kills", type=int, default=300, help="how many (300)")
    parser.add_argument("--seed", type=int, default=1, help="of all choices (1)")
    parser.add_argument("--lanes", type=int, default=6, help="daemons side by side (6)")
    parser.add_argument("--alone", action="store_true", help="kill nothing but the daemon")
    parser.add_argument("--keep", action="store_true", help="keep the logs, as after a loss")
    options = parser.parse_args(arguments)
    folder, tally, began = Path(tempfile.mkdtemp()), Tally(), time.monotonic()
    rounds = iter(range(1, options.kills + 1))
    played: list[Future[None]] = []
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(options.lanes) as pool:
        for number in range(options.lanes):
            own = folder / str(number)
            own.mkdir()
            engine = stack.enter_context(engine_in(own / "engine"))
            lane = Lane(number, own, engine, options.seed, options.alone, tally)
            played.append(pool.submit(lane.play, rounds))
        for one in played:
            one.result()
    print(told(tally, time.monotonic() - began))
    if tally.wrongs or options.keep:
        print(f"the logs are in {folder}")
    else:
        shutil.rmtree(folder)
    return 1 if tally.wrongs else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
