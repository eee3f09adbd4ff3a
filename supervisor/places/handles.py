"""What a model server is found by, whichever daemon started it: read with care from the state file.

Owns the forms. Each handle says in which place the server is. A handle of this machine means
nothing after a boot; a handle of another place may.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from configschema import Entrance, Landing
from configschema.keys.fields import Secret
from supervisor.processes.kin import Kin

HIGHEST_PID = 1 << 22  # see proc_sys_kernel(5)
LATER = frozenset({"members"})  # fields that older files lack
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot() -> str:
    """Return the id of the machine's present boot: pids mean nothing beyond it."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


def _pairs(data: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
    """Return pairs as tuples, also if they were read from JSON; anything else as it is."""
    if isinstance(data, list) and all(isinstance(one, list | tuple) for one in data):
        return tuple(tuple(one) for one in data)
    return data


@attrs.frozen
class HereHandle:
    """A process of this machine.

    Attributes:
        pid: the pid of its session's leader.
        started: the leader's start time in clock ticks since the boot; it tells apart processes
        with the same pid.
        token: the token that its kin carry in their environment; empty if there is none.
        boot: the boot in which it was started.
        members: its kin that were seen: the pid and the start time of each.
    """

    pid: int
    started: int
    token: str = ""
    boot: str = attrs.field(factory=boot)
    members: Sequence[Sequence[int]] = attrs.field(default=(), converter=_pairs)

    @classmethod
    def of(cls, kin: Kin) -> HereHandle:
        """Return the handle of a life."""
        members = sorted([pid, started] for pid, started in kin.seen.items())
        return cls(kin.leader, kin.started, kin.token, members=members)

    @property
    def kin(self) -> Kin:
        """The processes that belong to it."""
        seen = [(pid, started) for pid, started in self.members]
        return Kin(self.pid, self.started, self.token, seen=dict(seen))

    @property
    def is_valid(self) -> bool:
        """Whether it can stand for a process: a signal must not reach anything else."""
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
    """A server that lives without llamadoze: its model's address is all that is needed.

    Attributes:
        pid: the command that has started it, which may still live; 0 for none.
        started: the command's start time, in clock ticks since the boot.
        boot: the boot in which that was.
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
        """The process of the command, if it can still be there."""
        handle = HereHandle(self.pid, self.started, "", self.boot)
        return handle if handle.is_valid else None


@attrs.frozen
class StepHandle:
    """A step of a job in a cluster; it may outlive llamadoze's machine.

    Attributes:
        cluster: the name of the cluster.
        job: the number of the job.
        step: the job's number and its own, as in ``12.0``.
        token: its name there.
        node: the node that it runs on.
        host: the host that the server listens on there.
        port: the port that the server listens on there.
        address: the address of the node.
        entrance: the port of its launcher.
        key: the key to the launcher.
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
    """Return the handle in plain data; None if there is none, or it means nothing any more."""
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
