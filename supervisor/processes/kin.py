"""Who belongs to one life of a model: all processes that its first one has brought into the world.

Owns what makes a process belong: its descent, its session, its token, what it writes to; and
signals to many. The looks at the table of processes are `census`'s.
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
    """One life: its first process, and what tells the others.

    Attributes:
        leader: the pid of the first, which leads a session.
        started: when that was started, in clock ticks since the boot.
        token: what its processes carry in their environment; nothing is none.
        variable: where they carry it.
        output: what they write to, as the kernel names it; nothing if that is not known.
        seen: those that were members at some time, by pid, and when each was started.
    """

    leader: int
    started: int
    token: str = ""
    variable: str = TOKEN
    output: str = ""
    seen: dict[int, int] = attrs.field(factory=dict, eq=False)

    async def members(self) -> list[int]:
        """Return the pids of those that live; from now on they are known, whatever they do.

        A process that is about to become another program hides its environment for a moment.
        """
        found, is_certain = await self._look()
        if not found and not is_certain:
            await trio.sleep(TO_BECOME_ANOTHER)
            found, _ = await self._look()
        self.seen.clear()
        self.seen.update((entry.pid, entry.started) for entry in found)
        return [entry.pid for entry in found]

    async def _look(self) -> tuple[list[Entry], bool]:
        """Return those that live, and whether all others were seen well enough."""
        while True:
            try:
                if BROOD.gathers and self.leader in BROOD.started:
                    return self._look_below(await orphans_now())
                return self._look_in(await table_now())
            except OSError:  # there is no descriptor left to look with
                await trio.sleep(BETWEEN_ATTEMPTS)

    def _look_in(self, table: Table) -> tuple[list[Entry], bool]:
        hidden = table.marked.get(HIDDEN, ())
        is_certain = all(entry.started < self.started for entry in hidden)
        return [table.entries[pid] for pid in self.among(table)], is_certain

    def _look_below(self, orphans: Sequence[Orphan]) -> tuple[list[Entry], bool]:
        """Look where they can be: below the leader, and among the orphans that came to us."""
        known = (entry for pid in (self.leader, *self.seen) if (entry := entry_of(pid)))
        mine = [entry.pid for entry in known if self._owns(entry)]
        mine += [one.entry.pid for one in orphans if self._is_mine(one)]
        found = (entry for pid in below(list(dict.fromkeys(mine))) if (entry := entry_of(pid)))
        hidden = (one.entry for one in orphans if one.hides)
        return list(found), all(entry.started < self.started for entry in hidden)

    def among(self, table: Table) -> list[int]:
        """Return those of a table that belong to it."""
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
        """Whether it is the leader, or one that was seen, and not another with its number."""
        if entry.pid == self.leader and self.started in (0, entry.started):
            return True
        return self.seen.get(entry.pid) == entry.started

    def _is_our_session(self, entry: Entry, token: str) -> bool:
        """Whether a session that has the leader's number is the leader's."""
        if self.leader in BROOD.started:
            return True
        start = start_of(self.leader)
        if start is not None or not self.token:
            return start in (None, self.started)
        # The number may have been another's since; but that one's heirs do not carry our token.
        return token == self.token or not environment_of(entry.pid)

    def _is_mine(self, orphan: Orphan) -> bool:
        """Whether an orphan that came to us belongs here.

        One that carries no token does if it writes where the life does; or if there is no other
        life, and nothing is being started, that it could have come from. To PID 1, and to what was
        a shell before, come the orphans of others.
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
    """Send a signal to a process group; return whether there still is one.

    0 is none: killpg(2) would take it for our own.
    """
    if not pid:
        return False
    with contextlib.suppress(PermissionError):  # of a setuid program, which is alive
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            return False
    return True


def signal_all(pids: Iterable[int], number: int) -> None:
    """Send a signal to each of some processes, as far as that is allowed."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def kill_all(pids: Iterable[int]) -> None:
    """Kill processes."""
    signal_all(pids, signal.SIGKILL)


async def end_alone(pid: int, started: int, grace: float) -> None:
    """End a process, and nothing of what it has started.

    Args:
        pid: its number.
        started: when it was started, in clock ticks since the boot.
        grace: seconds between SIGTERM and SIGKILL.
    """
    signal_all([pid], signal.SIGTERM)
    with trio.move_on_after(grace):
        while start_of(pid) == started and is_alive(pid):  # noqa: ASYNC110 -- it is no child of ours
            await trio.sleep(BETWEEN_LOOKS)
        return
    if start_of(pid) == started:
        kill_all([pid])


async def end_orphans() -> None:
    """End what was handed over to this process, but for what was let go."""
    with trio.move_on_after(ORPHANS_GRACE):
        asked: set[int] = set()
        while left := await _orphans():
            signal_all(left - asked, signal.SIGTERM)
            asked |= left
            await trio.sleep(BETWEEN_LOOKS)
    with trio.move_on_after(ORPHANS_GRACE):
        while left := await _orphans():  # one may fork while it is killed
            kill_all(left)
            await trio.sleep(BETWEEN_LOOKS)


async def _orphans() -> set[int]:
    """Return orphans to be ended, with all below them.

    Where something was let go, or others may have orphans here, only those with a token count.
    """
    is_shared = bool(BROOD.spared or BROOD.before)
    found = [one for one in await orphans_now() if one.tokens or not is_shared]
    mine = [one.entry.pid for one in found if BROOD.spared.isdisjoint(one.tokens.values())]
    with contextlib.suppress(OSError):  # there is no descriptor left to look with
        return set(below(mine))
    return set(mine)
