"""Fake processes for tests on a virtual clock.

`FakePrograms` stands in for `open_child`. The first word of a command says what the fake does:
``serve`` runs until it is ended, ``sleep N`` succeeds after N seconds, ``fail N`` exits with
status N, ``missing`` cannot start, and ``crash N`` exits with status 7 after N seconds. A test may
change at any time which fakes fail or cannot be ended.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from configschema import Call, Model
from supervisor.places.addresses import Answering
from supervisor.processes.child import CannotStart
from supervisor.processes.kin import Kin
from supervisor.processes.memory import Held


@attrs.frozen
class FakeKin(Kin):
    stuck: set[int] = attrs.field(factory=set)

    async def members(self) -> list[int]:
        await trio.lowlevel.checkpoint()
        return [self.leader] if self.leader in self.stuck else []


@attrs.define(eq=False)
class FakeChild:
    pid: int
    argv: tuple[str, ...]
    grace: float
    kin: Any = None
    ask: Any = None
    ended: trio.Event = attrs.field(factory=trio.Event)
    status: int | None = None
    was_killed: bool = False
    is_let_go: bool = False
    must_be_asked: bool = False
    left: tuple[int, ...] = ()

    async def exited(self) -> int:
        if self.status is not None:
            await trio.lowlevel.checkpoint()
            return self.status
        match self.argv:
            case ("sleep", seconds):
                await self._until(float(seconds), 0)
            case ("crash", seconds):
                await self._until(float(seconds), 7)
            case ("fail", status):
                await self._until(0, int(status))
            case _:
                await self.ended.wait()
        assert self.status is not None
        return self.status

    async def _until(self, seconds: float, status: int) -> None:
        with trio.move_on_after(seconds):
            await self.ended.wait()
        if self.status is None:
            self.exit(status)

    def exit(self, status: int) -> None:
        self.status = status
        self.ended.set()

    @property
    def has_ended(self) -> bool:
        return self.status is not None

    can_be_let_go = False

    def let_go(self) -> None:
        self.is_let_go = True

    def cut(self) -> None:
        pass

    async def terminate(self) -> None:
        await trio.lowlevel.checkpoint()

    def spare_strays(self) -> None:
        pass


@attrs.define(eq=False)
class FakePrograms:
    """Records what starts and ends; at most one program of each name runs.

    Attributes:
        running: by pid.
        history: commands that started (``+``) and ended (``-``), in order.
        broken: commands that exit with status 1 as soon as they start.
        cramped: commands that do the same, but only while another program runs.
        unkillable: commands whose process survives its end.
        stuck: the pids of processes that survived.
    """

    running: dict[int, FakeChild] = attrs.field(factory=dict)
    history: list[str] = attrs.field(factory=list)
    broken: set[str] = attrs.field(factory=set)
    cramped: set[str] = attrs.field(factory=set)
    unkillable: set[str] = attrs.field(factory=set)
    stuck: set[int] = attrs.field(factory=set)
    _pids: count[int] = attrs.field(factory=lambda: count(100))

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
        await trio.lowlevel.checkpoint()
        if argv[0] == "missing":
            raise CannotStart(f"No such file or directory: {argv[0]!r}")
        pid, command = next(self._pids), " ".join(argv)
        child = FakeChild(pid, tuple(argv), grace, FakeKin(pid, 1, token, stuck=self.stuck))
        if command in self.broken or (command in self.cramped and self.running):
            child.exit(1)
        self.running[child.pid] = child
        self.history.append(f"+ {command}")
        try:
            yield child
        finally:
            del self.running[child.pid]
            self.history.append(f"- {command}")
            if command in self.unkillable:
                self.stuck.add(pid)
                child.left = (pid,)
            if child.status is None:
                child.exit(-15)

    def of(self, *argv: str) -> FakeChild:
        return next(child for child in self.running.values() if child.argv == argv)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("supervisor.places.here.open_child", self.open_child)
        monkeypatch.setattr("supervisor.places.elsewhere.open_child", self.open_child)
        monkeypatch.setattr("supervisor.places.here.addresses_of", nowhere)
        monkeypatch.setattr("supervisor.places.elsewhere.listening_for", unseen)
        monkeypatch.setattr("supervisor.places.localserver.who_answers", its_own)
        monkeypatch.setattr("supervisor.processes.commands.open_child", self.open_child)
        monkeypatch.setattr("supervisor.processes.memory.weigh", FakeScales())


async def nowhere(_: Model) -> list[Any]:
    """Return no addresses, because a fake program listens on none."""
    await trio.lowlevel.checkpoint()
    return []


async def unseen(_: Model) -> None:
    """Treat a fake program's address as one of another machine."""
    await trio.lowlevel.checkpoint()


async def its_own(_: Model, __: Sequence[int]) -> Answering:
    """Say that the fake program itself answers at its address."""
    await trio.lowlevel.checkpoint()
    return Answering(frozenset({1}))


@attrs.define(eq=False)
class FakeScales:
    """Says what memory is held: each given value in turn, and the last one repeatedly."""

    held: list[Held] = attrs.field(factory=lambda: [Held()])
    asked: int = 0

    async def __call__(self, pid: int, host: bool) -> Held:
        await trio.lowlevel.checkpoint()
        self.asked += 1
        return self.held.pop(0) if len(self.held) > 1 else self.held[0]


@attrs.define(eq=False)
class FakeProbe:
    """Says which models are ready: all except those in `unready`."""

    unready: set[str] = attrs.field(factory=set)

    async def __call__(self, model: Model) -> str | None:
        await trio.lowlevel.checkpoint()
        return "/health answered 503" if model.id in self.unready else None


@attrs.define(eq=False)
class FakeCalls:
    """Notes the HTTP steps that are sent; steps whose address contains `failing` return 500.

    A step whose address contains ``slow=N`` is answered after N seconds.
    """

    failing: str = "\0"
    made: list[str] = attrs.field(factory=list)

    async def __call__(self, step: Call) -> str | None:
        _, slow, seconds = step.url.partition("slow=")
        await trio.sleep(float(seconds) if slow else 0)
        self.made.append(f"{step.method} {step.url} {step.body}".strip())
        return "answered 500" if self.failing in step.url else None
