"""Which processes belong to one life of a model: its first process and all that came from it.

Owns what makes a process belong: its ancestry, its session, its token, and where it writes to. Also
sends signals to many processes. `census` reads the process table.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Sequence

import attrs
import trio

from supervisor.processes.brood import BROOD, below
from supervisor.processes.census import (
    BETWEEN_ATTEMPTS,
    HIDDEN,
    TO_BECOME_ANOTHER,
    TOKEN,
    Entry,
    Orphan,
    Table,
    entry_of,
    environment_of,
    is_alive,
    orphans_now,
    start_of,
    table_now,
    token_of,
)

ORPHANS_GRACE = 2.0  # seconds for orphans at the daemon's end
BETWEEN_LOOKS = 0.01


@attrs.frozen
class Kin:
    """One life: its first process, and the marks of its other processes.

    Attributes:
        leader: the pid of the first process, which leads a session.
        started: the leader's start time, in clock ticks since the boot.
        token: the token that its processes carry in their environment; empty for no token.
        variable: the variable that carries the token.
        output: where they write to, as the kernel names it; empty if that is not known.
        seen: processes that were members before, by pid, with the start time of each.
    """

    leader: int
    started: int
    token: str = ""
    variable: str = TOKEN
    output: str = ""
    seen: dict[int, int] = attrs.field(factory=dict, eq=False)

    async def members(self) -> list[int]:
        """Return the pids of its living processes; from now on these are known, whatever they do.

        During an exec, a process hides its environment for a moment.
        """
        found, is_certain = await self._look()
        if not found and not is_certain:
            await trio.sleep(TO_BECOME_ANOTHER)
            found, _ = await self._look()
        self.seen.clear()
        self.seen.update((entry.pid, entry.started) for entry in found)
        return [entry.pid for entry in found]

    async def _look(self) -> tuple[list[Entry], bool]:
        """Return its living processes, and whether all other processes could be read."""
        while True:
            try:
                if BROOD.gathers and self.leader in BROOD.started:
                    return self._look_below(await orphans_now())
                return self._look_in(await table_now())
            except OSError:  # no file descriptor is left to look with
                await trio.sleep(BETWEEN_ATTEMPTS)

    def _look_in(self, table: Table) -> tuple[list[Entry], bool]:
        hidden = table.marked.get(HIDDEN, ())
        is_certain = all(entry.started < self.started for entry in hidden)
        return [table.entries[pid] for pid in self.among(table)], is_certain

    def _look_below(self, orphans: Sequence[Orphan]) -> tuple[list[Entry], bool]:
        """Look only below the leader and among the orphans that came to this process."""
        known = (entry for pid in (self.leader, *self.seen) if (entry := entry_of(pid)))
        mine = [entry.pid for entry in known if self._owns(entry)]
        mine += [one.entry.pid for one in orphans if self._is_mine(one)]
        found = (entry for pid in below(list(dict.fromkeys(mine))) if (entry := entry_of(pid)))
        hidden = (one.entry for one in orphans if one.hides)
        return list(found), all(entry.started < self.started for entry in hidden)

    def among(self, table: Table) -> list[int]:
        """Return the processes of a table that belong to this life."""
        marks = (self.leader, (self.variable, self.token), *self.seen)
        near = (entry for mark in marks for entry in table.marked.get(mark, ()))
        return table.below(entry.pid for entry in near if self._owns(entry))

    def _owns(self, entry: Entry) -> bool:
        if self._knows(entry):
            return True
        if entry.started < self.started or entry.pid == self.leader:
            return False
        token = token_of(entry.pid, self.variable) if self.token else ""
        if self.leader and self.leader == entry.session and self._is_our_session(entry, token):
            return True
        return bool(token) and token == self.token

    def _knows(self, entry: Entry) -> bool:
        """Whether this is the leader or was seen before, and no other process with its pid."""
        if entry.pid == self.leader and self.started in (0, entry.started):
            return True
        return self.seen.get(entry.pid) == entry.started

    def _is_our_session(self, entry: Entry, token: str) -> bool:
        """Whether a session with the leader's number is the leader's session."""
        if self.leader in BROOD.started:
            return True
        start = start_of(self.leader)
        if start is not None or not self.token:
            return start in (None, self.started)
        # Another process may have had the number since, but its descendants lack our token.
        return token == self.token or not environment_of(entry.pid)

    def _is_mine(self, orphan: Orphan) -> bool:
        """Whether an orphan that came to this process belongs to this life.

        An orphan without a token belongs here if it writes where the life does. It also belongs
        here if no other life, and nothing that is being started, can be its origin. This does not
        apply if this process is PID 1, or was a shell before: those get the orphans of others.
        """
        entry = orphan.entry
        if self._knows(entry) or entry.session == self.leader:
            return True
        if entry.started < self.started:
            return False
        if orphan.tokens:
            return bool(self.token) and orphan.tokens.get(self.variable) == self.token
        if self.variable != TOKEN:
            return False
        if self.output and self.output in orphan.outputs:
            return True
        alone = BROOD.is_settled and BROOD.started <= {self.leader} and not BROOD.before
        return alone and os.getpid() != 1 and orphan.outputs.isdisjoint(BROOD.outputs)


def signal_group(pid: int, number: int) -> bool:
    """Send a signal to a process group; return whether the group still exists.

    0 means no group: killpg(2) would take it for our own group.
    """
    if not pid:
        return False
    with contextlib.suppress(PermissionError):  # a setuid program, which is alive
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            return False
    return True


def signal_all(pids: Iterable[int], number: int) -> None:
    """Send a signal to each of these processes, as far as that is allowed."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def kill_all(pids: Iterable[int]) -> None:
    """Kill these processes."""
    signal_all(pids, signal.SIGKILL)


async def end_alone(pid: int, started: int, grace: float) -> None:
    """End one process, and none of the processes that it has started.

    Args:
        pid: its process id.
        started: its start time, in clock ticks since the boot.
        grace: seconds between SIGTERM and SIGKILL.
    """
    signal_all([pid], signal.SIGTERM)
    with trio.move_on_after(grace):
        while start_of(pid) == started and is_alive(pid):  # noqa: ASYNC110 -- no child of ours
            await trio.sleep(BETWEEN_LOOKS)
        return
    if start_of(pid) == started:
        kill_all([pid])


async def end_orphans() -> None:
    """End the orphans that were handed over to this process, except those that were let go."""
    with trio.move_on_after(ORPHANS_GRACE):
        asked: set[int] = set()
        while left := await _orphans():
            signal_all(left - asked, signal.SIGTERM)
            asked |= left
            await trio.sleep(BETWEEN_LOOKS)
    with trio.move_on_after(ORPHANS_GRACE):
        while left := await _orphans():  # a process may fork while it is killed
            kill_all(left)
            await trio.sleep(BETWEEN_LOOKS)


async def _orphans() -> set[int]:
    """Return the orphans to end, with all their descendants.

    If processes were let go, or others may have orphans here, only orphans with a token count.
    """
    is_shared = bool(BROOD.spared or BROOD.before)
    found = [one for one in await orphans_now() if one.tokens or not is_shared]
    mine = [one.entry.pid for one in found if BROOD.spared.isdisjoint(one.tokens.values())]
    with contextlib.suppress(OSError):  # no file descriptor is left to look with
        return set(below(mine))
    return set(mine)
