"""A machine with GPUs whose memory fake programs take, but no more of it than there is.

A model's program is ``serve NAME``. What it holds follows from its name. Its environment says on
which GPUs it runs, and the supervisor itself says whether it is awake.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import trio
import yaml

from configschema import parse
from supervisor import State, Supervisor, open_supervisor
from supervisor.processes.memory import Held
from supervisor.processes.survey import Survey
from supervisor.room.devices import Device, Reading
from supervisor.sleep.contact import Contact
from supervisor.succession.records import Records
from tests.fakes import FakeCalls, FakeChild, FakeProbe, FakePrograms

GIB = 1 << 30
WITHOUT_MEMORY = b"CUDA error: out of memory\n"
NOTHING = Held(0, 0, {}, 0)  # what `survey` tells of a process that is gone


@attrs.frozen
class Takes:
    """What a program takes, in GiB: of each of its GPUs and of the host, awake and asleep.

    `mapped` is the part of the host memory that is files: the kernel can drop them, and counts them
    as free.
    """

    gpu: float = 0
    host: float = 0
    gpu_asleep: float = 0
    host_asleep: float = 0
    mapped: float = 0


@attrs.define(eq=False, slots=False)
class FakeRoom(FakePrograms):
    """The machine.

    Attributes:
        gpus: GiB of each GPU, by its name.
        host: GiB of the host.
        takes: what each program takes, by its model.
        strangers: GiB that other programs hold, by device.
        tells: whether the driver tells which process holds what.
        hangs: whether a look never ends.
        delay: seconds that a look takes otherwise.
        looks: when each look began.
        env: the environment of the last start of each program, by its model.
        short: commands that fail and say that memory is missing.
        supervisor: the supervisor that runs.
    """

    gpus: dict[str, float] = attrs.field(factory=dict)
    host: float = 64
    takes: dict[str, Takes] = attrs.field(factory=dict)
    strangers: dict[str, float] = attrs.field(factory=dict)
    tells: bool = True
    hangs: bool = False
    delay: float = 0.01
    looks: list[float] = attrs.field(factory=list)
    env: dict[str, Mapping[str, str]] = attrs.field(factory=dict)
    short: set[str] = attrs.field(factory=set)
    supervisor: Supervisor | None = None

    async def take(self, roots: Mapping[str, int]) -> Survey:
        """Look, as `survey` does."""
        self.looks.append(trio.current_time())
        if self.hangs:
            await trio.sleep_forever()
        await trio.sleep(self.delay)
        there = {
            pid: self._held(child.argv[1])
            for pid, child in self.running.items()
            if child.argv[0] == "serve"
        }
        taken = sum(one.own or 0 for one in there.values()) + self.strangers.get("host", 0) * GIB
        return Survey(
            readings=[self._reading(name, there) for name in self.gpus],
            held={name: there.get(pid, NOTHING) for name, pid in roots.items()},
            host_total=int(self.host * GIB),
            host_free=int(self.host * GIB - taken),
        )

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stand in for this machine's programs, and for the kernel's list of those that run."""
        FakePrograms.install(self, monkeypatch)
        monkeypatch.setattr("supervisor.scheduling.roomkeeper.Path", self._folder)

    def _folder(self, path: str) -> SimpleNamespace:
        pid = int(path.rpartition("/")[2])
        return SimpleNamespace(exists=lambda: pid in self.running)

    def device(self, name: str) -> Device:
        number = [*self.gpus].index(name)
        known = frozenset({name.lower(), str(number)})
        total = int(self.gpus[name] * GIB)
        return Device(
            name=name, vendor="nvidia", index=number, title="made up", total=total, known_as=known
        )

    def _reading(self, gpu: str, there: Mapping[int, Held]) -> Reading:
        """Tell of all programs, as a driver does, whichever were asked for."""
        ours = {pid: one.by_gpu.get(gpu, 0) for pid, one in there.items()}
        used = sum(ours.values()) + int(self.strangers.get(gpu, 0) * GIB)
        by_pid = {pid: amount for pid, amount in ours.items() if amount} if self.tells else None
        return Reading(device=self.device(gpu), used=used, held=by_pid)

    def _held(self, name: str) -> Held:
        takes, sleeps = self.takes.get(name, Takes()), self._sleeps(name)
        each = int((takes.gpu_asleep if sleeps else takes.gpu) * GIB)
        by_gpu = {gpu: each for gpu in self.seen_by(name) if each}
        host = int((takes.host_asleep if sleeps else takes.host) * GIB)
        own = max(0, host - int(takes.mapped * GIB))
        return Held(host, sum(by_gpu.values()), by_gpu, own)

    def _sleeps(self, name: str) -> bool:
        assert self.supervisor is not None
        return self.supervisor.servers[name].at.state is State.ASLEEP

    def seen_by(self, name: str) -> list[str]:
        """Return the GPUs that a program uses: those in its environment, or the first."""
        said = self.env[name].get("CUDA_VISIBLE_DEVICES")
        return [*self.gpus][:1] if said is None else [gpu for gpu in said.split(",") if gpu]

    def held_on(self, gpu: str) -> float:
        """Return the GiB that programs hold on a GPU; a program that moves counts as awake."""
        sums = 0.0
        for child in self.running.values():
            if child.argv[0] == "serve" and gpu in self.seen_by(child.argv[1]):
                takes = self.takes.get(child.argv[1], Takes())
                sums += takes.gpu_asleep if self._sleeps(child.argv[1]) else takes.gpu
        return sums + self.strangers.get(gpu, 0)

    @asynccontextmanager
    async def open_child(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        on_output: Callable[[bytes], None],
        grace: float,
        log_file: Path | None = None,
        token: str = "",
    ) -> AsyncIterator[FakeChild]:
        """Start a program, which ends at once if there is too little memory for it."""
        if argv[0] == "serve":
            self.env[argv[1]] = env
        async with FakePrograms.open_child(
            self, argv, env=env, on_output=on_output, grace=grace, log_file=log_file, token=token
        ) as child:
            used = self.seen_by(argv[1]) if argv[0] == "serve" else []
            is_full = any(self.held_on(gpu) > self.gpus[gpu] for gpu in used if gpu in self.gpus)
            if is_full or " ".join(argv) in self.short:
                on_output(WITHOUT_MEMORY)
                child.exit(1)
            yield child


def served(name: str, *, sleeps: bool = True, **keys: Any) -> dict[str, object]:
    """Return a model's settings."""
    body: dict[str, object] = {"cmd": f"serve {name}", "proxy": "http://model.test:9", **keys}
    return {**body, "cmdSleep": "sleep 1", "cmdWake": "sleep 2"} if sleeps else body


def written(models: Mapping[str, object], memory: Mapping[str, object], **more: object) -> str:
    """Return a configuration with `router.use: memory`."""
    router = {"use": "memory", "settings": {"memory": dict(memory)}}
    return yaml.safe_dump({"models": dict(models), "routing": {"router": router}, **more})


@asynccontextmanager
async def opened(
    room: FakeRoom, text: str, *, records: Records | None = None
) -> AsyncIterator[Supervisor]:
    """Open a supervisor on the machine."""
    contact = Contact(probe=FakeProbe(), call=FakeCalls())
    opening: AbstractAsyncContextManager[Supervisor] = open_supervisor(
        parse(text).config, contact, records=records
    )
    async with opening as supervisor:
        room.supervisor = supervisor
        supervisor._fleet.rooms.here.take = room.take
        yield supervisor


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> FakeRoom:
    """A machine with two GPUs of 24 GiB."""
    found = FakeRoom(gpus={"GPU-aa": 24.0, "GPU-bb": 24.0})
    found.install(monkeypatch)
    return found
