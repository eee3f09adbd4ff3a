"""Orphans that are handed to the daemon: whose they are, how they end and are forgotten."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from supervisor.processes.brood import Brood, below, children_of
from tests.supervisor.processes.families import LEFT_BOTH, kill, running

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("scene", "found"),
    [
        (
            "orphans_come_and_are_reaped",
            {"comes": True, "is the only one": True, "is forgotten": True},
        ),
        ("what_is_being_started_is_not_reaped", {"status": 3}),
        ("a_number_of_before_may_be_a_childs_now", {"status": 3}),
        ("children_keep_their_status", {"statuses": [*range(20)], "left": []}),
        ("who_has_left_all_ends_with_the_only_life", {"alive": [False, False]}),
        (
            "who_has_left_all_is_known_by_what_it_writes_to",
            {"alive": [False, False]},
        ),
        ("what_is_let_go_outlives_the_end", {"alive": [True, False]}),
        ("a_commands_daemon_lives_until_the_end", {"alive": [True, False]}),
        ("a_process_that_ignores_the_end_is_killed", {"waited": True, "left": []}),
    ],
)
def test_a_daemon_that_gathers_orphans(scene: str, found: dict[str, object]) -> None:
    """The name of each scene says what is expected; see `gathering`."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.supervisor.processes.gathering", scene],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        cwd=ROOT,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout) == found


def test_a_process_that_does_not_gather_has_no_orphans() -> None:
    """Its children may belong to any code, so their status is left alone."""
    with running("true") as (process, _):
        brood = Brood()
        assert process.pid in children_of(os.getpid())
        assert brood.orphans() == []
        brood.reap_orphans()


def test_descendants_are_found_over_several_generations_and_no_orphans() -> None:
    """An orphan is no descendant of the processes that it has left."""
    with running(f"sh -c 'sleep 60 & exec sleep 60' &\n{LEFT_BOTH}") as (leader, (orphan,)):
        tree = psutil.Process(leader.pid)
        began = time.monotonic()
        while len(near := {one.pid for one in tree.children(recursive=True)}) < 2:
            assert time.monotonic() < began + 5
        assert set(below([leader.pid])) == {leader.pid, *near}
        assert len(children_of(leader.pid)) == 1
        assert orphan not in near
        kill(near)
    assert children_of(leader.pid) == []
    assert below([leader.pid]) == [leader.pid]


def test_children_of_every_thread_are_found() -> None:
    """The kernel lists a child with the thread that has started it."""
    code = (
        "import os, subprocess, threading, time\n"
        "def start():\n"
        "    process = subprocess.Popen(['sleep', '60'])\n"
        "    os.write(1, b'%d\\n' % process.pid)\n"
        "    time.sleep(60)\n"
        "for _ in range(3): threading.Thread(target=start, daemon=True).start()\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout
        pids = {int(process.stdout.readline()) for _ in range(3)}
        try:
            assert set(children_of(process.pid)) == pids
        finally:
            for pid in (process.pid, *pids):
                os.kill(pid, 9)
