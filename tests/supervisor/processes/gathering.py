"""Scenes for a process that gathers orphans, each in a process of its own.

Gathering concerns the whole process. So ``python -m tests.supervisor.processes.gathering NAME``
runs one scene, and writes its result as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable

import trio
import trio.testing

from supervisor.processes import child, kin
from supervisor.processes.brood import BROOD, children_of
from supervisor.processes.census import TOKEN, entry_of, is_alive, start_of
from supervisor.processes.child import open_child
from supervisor.processes.commands import run_told
from supervisor.processes.kin import end_orphans
from tests.supervisor.processes.families import (
    LEFT_ALL,
    LEFT_BOTH,
    OTHER,
    OWN,
    parent,
    pids_in,
    until_gone,
    until_said,
)

Found = dict[str, object]


async def orphans_come_and_are_reaped() -> Found:
    """The kernel hands an orphan to this process, which forgets the orphan when it has ended."""
    orphan = parent(LEFT_ALL)
    entry = entry_of(orphan)
    found: Found = {
        "comes": entry is not None and entry.parent == os.getpid(),
        "is the only one": BROOD.orphans() == [orphan],
    }
    async with trio.open_nursery() as nursery:
        nursery.start_soon(BROOD.reap)
        os.kill(orphan, 9)
        with trio.move_on_after(3):
            while start_of(orphan) is not None:
                await trio.sleep(0.005)
        found["is forgotten"] = start_of(orphan) is None
        nursery.cancel_scope.cancel()
    return found


async def a_number_of_before_may_be_a_childs_now() -> Found:
    """The exit status belongs to the code that has started the child."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(BROOD.reap)
        process = subprocess.Popen(["sh", "-c", "exit 3"])  # noqa: ASYNC220 -- a moment
        BROOD.add(process.pid)
        BROOD.before = frozenset({process.pid})
        await until_gone([process.pid])
        await trio.sleep(0.1)
        status = process.wait()
        nursery.cancel_scope.cancel()
    return {"status": status}


async def what_is_being_started_is_not_reaped() -> Found:
    """The status belongs to the code that starts it, even if it ends before its pid is known."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(BROOD.reap)
        await trio.testing.wait_all_tasks_blocked()
        with BROOD.start():
            process = subprocess.Popen(["sh", "-c", "exit 3"])  # noqa: ASYNC220 -- a moment
            await until_gone([process.pid])
            await trio.sleep(0.1)
            BROOD.add(process.pid)
        await trio.sleep(0.05)
        status = process.wait()
        nursery.cancel_scope.cancel()
    return {"status": status}


async def children_keep_their_status() -> Found:
    """Meanwhile orphans come and go."""
    statuses = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(BROOD.reap)
        for status in range(20):
            argv = ["sh", "-c", f"(true &); exit {status}"]
            async with open_child(
                argv, env=dict(os.environ), on_output=lambda _: None, grace=1, token=OWN
            ) as process:
                statuses.append(await process.exited())
        with trio.move_on_after(3):
            while BROOD.orphans():
                await trio.sleep(0.005)
        nursery.cancel_scope.cancel()
    return {"statuses": statuses, "left": BROOD.orphans()}


async def _alive_after_a_life() -> tuple[list[bool], list[int]]:
    """Return which of the processes that a life has started outlive it, and their pids."""
    output: list[bytes] = []
    argv = ["sh", "-c", f"{LEFT_ALL}\n{LEFT_BOTH}\necho up; sleep 60; :"]
    env = dict(os.environ)
    async with open_child(argv, env=env, on_output=output.append, grace=3, token=OWN) as process:
        pids = await until_said(output)
        assert process.pid in await process.kin.members()
    return [is_alive(pid) for pid in pids], pids


async def who_has_left_all_ends_with_the_only_life() -> Found:
    """No other life can have started it."""
    return {"alive": (await _alive_after_a_life())[0]}


async def who_has_left_all_is_known_by_what_it_writes_to() -> Found:
    """It still has the life's pipe."""
    argv, env = ["sleep", "60"], dict(os.environ)
    async with open_child(argv, env=env, on_output=lambda _: None, grace=1, token=OTHER):
        alive, _ = await _alive_after_a_life()
    return {"alive": alive}


async def what_is_let_go_outlives_the_end() -> Found:
    """It lives on because of its token; whatever else is left ends."""
    pids = [parent(LEFT_BOTH, **{TOKEN: token}) for token in (OWN, OTHER)]
    BROOD.spared.add(OWN)
    await end_orphans()
    await until_gone(pids[1:])
    alive = [is_alive(pid) for pid in pids]
    os.kill(pids[0], 9)
    return {"alive": alive}


async def a_commands_daemon_lives_until_the_end() -> Found:
    """A command that has finished may have started one; a command that was cut may not."""
    said: list[bytes] = []
    cut: list[bytes] = []
    env = dict(os.environ)
    await run_told(["sh", "-c", LEFT_BOTH], env=env, on_output=said.append)
    with trio.move_on_after(0.4):
        await run_told(["sh", "-c", f"{LEFT_BOTH}\nsleep 60"], env=env, on_output=cut.append)
    pids = [*pids_in(b"".join(said)), *pids_in(b"".join(cut))]
    alive = [is_alive(pid) for pid in pids]
    await end_orphans()
    await until_gone(pids)
    return {"alive": alive}


async def a_process_that_ignores_the_end_is_killed() -> Found:
    """It is killed at the daemon's end, after a moment."""
    script = """setsid sh -c 'trap "" TERM; echo $$; while :; do sleep 60; done' 2>/dev/null &"""
    orphan = parent(script)
    began = trio.current_time()
    await end_orphans()
    await until_gone([orphan])
    waited = trio.current_time() - began
    left = [pid for pid in children_of(os.getpid()) if is_alive(pid)]
    return {"waited": kin.ORPHANS_GRACE <= waited < 2, "left": left}


SCENES: dict[str, Callable[[], Awaitable[Found]]] = {
    scene.__name__: scene
    for scene in (
        orphans_come_and_are_reaped,
        a_number_of_before_may_be_a_childs_now,
        what_is_being_started_is_not_reaped,
        children_keep_their_status,
        who_has_left_all_ends_with_the_only_life,
        who_has_left_all_is_known_by_what_it_writes_to,
        what_is_let_go_outlives_the_end,
        a_commands_daemon_lives_until_the_end,
        a_process_that_ignores_the_end_is_killed,
    )
}


def main(name: str) -> None:
    kin.ORPHANS_GRACE, child.ESCAPEE_GRACE = 0.3, 0.1
    BROOD.gather()
    assert BROOD.gathers
    print(json.dumps(trio.run(SCENES[name])))


if __name__ == "__main__":
    main(sys.argv[1])
