"""What a model server is found by, whoever has started it: kept in the state file, read with care.

Owns the forms. Each says in which place the server is; a handle of this machine means nothing after
a boot of it, one of another place may.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from configschema import Entrance, Landing
from configschema.keys.fields import Secret
from supervisor.processes.kin import Kin

HIGHEST_PID = 1 << 22  # as proc_sys_kernel(5) has it
LATER = frozenset({"members"})  # parts that older files have not
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot() -> str:
    """Return what stands for the time since the machine was started: pids mean nothing beyond."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


def _pairs(data: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
    """Return pairs as they are kept, also if they were read from JSON; else what was given."""
    if isinstance(data, list) and all(isinstance(one, list | tuple) for one in data):
        return tuple(tuple(one) for one in data)
    return data


@attrs.frozen
class HereHandle:
    """A process of this machine.

    Attributes:
        pid: of the leader of its session.
        started: when, in clock ticks since the boot: what tells it from another of the same pid.
        token: what its kin carry in their environment; nothing if they do not.
        boot: since which start of the machine it has run.
        members: its kin, as far as it was seen: the pid of each, and when it was started.
    """

    pid: int
    started: int
    token: str = ""
    boot: str = attrs.field(factory=boot)
    members: Sequence[Sequence[int]] = attrs.field(default=(), converter=_pairs)

    @classmethod
    def of(cls, kin: Kin) -> HereHandle:
        """Return what finds a life."""
        members = sorted([pid, started] for pid, started in kin.seen.items())
        return cls(kin.leader, kin.started, kin.token, members=members)

    @property
    def kin(self) -> Kin:
        """Who belongs to it."""
        seen = [(pid, started) for pid, started in self.members]
        return Kin(self.pid, self.started, self.token, seen=dict(seen))

    @property
    def is_valid(self) -> bool:
        """Whether it can stand for a process: nothing else may reach a signal."""
        numbers = (self.pid, self.started)
        return (
            all(type(number) is int for number in numbers)
            and 1 < self.pid < HIGHEST_PID
            and self.started > 0
            and isinstance(self.token, str)
            and isinstance(self.members, tuple)
            and all(_is_member(one) for one in self.members)
            and self.boot == boot()
        )


def _is_member(data: object) -> bool:
    if not isinstance(data, list | tuple) or len(data) != 2:
        return False
    pid, started = data
    return type(pid) is int and type(started) is int and 1 < pid < HIGHEST_PID


@attrs.frozen
class ElsewhereHandle:
    """A server that lives without us: its model's address is all that is needed.

    Attributes:
        pid: of the command that has started it, which may live as well; 0 is none.
        started: when, in clock ticks since the boot.
        boot: of which start of the machine that was.
    """

    pid: int = 0
    started: int = 0
    boot: str = attrs.field(factory=boot)

    @property
    def is_valid(self) -> bool:
        """Whether it can stand for a server."""
        return type(self.pid) is int and type(self.started) is int and isinstance(self.boot, str)

    @property
    def command(self) -> HereHandle | None:
        """The process of the command, if it can be there yet."""
        handle = HereHandle(self.pid, self.started, "", self.boot)
        return handle if handle.is_valid else None


@attrs.frozen
class StepHandle:
    """A step of a job in a cluster; it may outlive any machine of ours.

    Attributes:
        cluster: the name of the cluster.
        job: the number of the job.
        step: its own, as in ``12.0``.
        token: its name there.
        node: where it runs.
        host: that the server listens on there.
        port: the same.
        address: of the node.
        entrance: the port of its launcher.
        key: that is shown there.
    """

    cluster: str
    job: str
    step: str
    token: str
    node: str
    host: str
    port: int
    address: str
    entrance: int
    key: str = attrs.field(repr=False)

    @property
    def is_valid(self) -> bool:
        """Whether it can stand for a step."""
        numbers = {"port", "entrance"}
        return all(
            type(value) is (int if name in numbers else str)
            for name, value in attrs.asdict(self).items()
        ) and all(character in "0123456789abcdef" for character in self.key)

    @property
    def landing(self) -> Landing:
        """Where its server is reached."""
        entrance = Entrance(self.address, self.entrance, Secret(self.key))
        return Landing(self.host, self.port, entrance)


Handle = HereHandle | ElsewhereHandle | StepHandle
PLACES: Mapping[str, type[Handle]] = {
    "here": HereHandle,
    "elsewhere": ElsewhereHandle,
    "step": StepHandle,
}


def as_data(handle: Handle) -> dict[str, Any]:
    """Return a handle as plain data, with the name of its place."""
    place = next(name for name, kind in PLACES.items() if type(handle) is kind)
    return {"place": place, **attrs.asdict(handle)}


def handle_in(data: object) -> Handle | None:
    """Return the handle that plain data holds; None if it is none, or means nothing any more."""
    if not isinstance(data, dict):
        return None
    kind = PLACES.get(str(data.get("place")))
    given = {key: value for key, value in data.items() if key != "place"}
    if kind is None:
        return None
    fields = attrs.fields_dict(kind).keys()
    if not fields - LATER <= given.keys() <= fields:
        return None
    handle = kind(**given)
    return handle if handle.is_valid else None
