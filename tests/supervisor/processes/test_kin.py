"""Which processes belong to a life: by descent, session and token; and how they are looked up."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from supervisor.processes import census, kin
from supervisor.processes.census import (
    COMMAND,
    TOKEN,
    Entry,
    Table,
    entry_of,
    is_alive,
    name_of,
    owned_by,
    start_of,
    table_now,
    token_of,
)
from tests.supervisor.processes.families import (
    LEFT_BOTH,
    LEFT_ITS_ENVIRONMENT,
    LEFT_ITS_PARENT,
    LEFT_THE_SESSION,
    OTHER,
    OWN,
    OWNER,
    kin_of,
    running,
)


@pytest.mark.parametrize(
    "script",
    ["sleep 60 & echo $!", LEFT_THE_SESSION, LEFT_ITS_PARENT, LEFT_BOTH, LEFT_ITS_ENVIRONMENT],
)
async def test_what_a_life_has_started_belongs_to_it(script: str) -> None:
    """It belongs whichever of its parent, its session and its environment it has left."""
    with running(script, **{TOKEN: OWN}) as (leader, pids):
        assert set(await kin_of(leader, OWN).members()) == {leader.pid, *pids}
        assert len(pids) == 1


async def test_what_descends_from_a_member_belongs_without_a_sign_of_its_own() -> None:
    """A session of its own and an empty environment do not hide it."""
    with running("env -i setsid sleep 60 & echo $!") as (leader, pids):
        assert set(await kin_of(leader).members()) == {leader.pid, *pids}


async def test_another_life_of_the_same_model_does_not_belong() -> None:
    """A command of it does not belong either, because its token is in another variable."""
    with (
        running(LEFT_BOTH, **{TOKEN: OWN}) as (leader, pids),
        running(LEFT_BOTH, **{TOKEN: OTHER}),
        running(LEFT_BOTH, **{COMMAND: OWN}) as (command, of_command),
    ):
        assert set(await kin_of(leader, OWN).members()) == {leader.pid, *pids}
        found = attrs.evolve(kin_of(command, OWN), variable=COMMAND)
        assert set(await found.members()) == {command.pid, *of_command}


@pytest.mark.parametrize("token", ["", OWN], ids=["without", "with"])
async def test_a_leader_that_has_ended_leaves_its_kin_to_be_found(token: str) -> None:
    """The session finds them, as nobody else can have it meanwhile; the token finds the rest."""
    script = f"{LEFT_BOTH}\n{LEFT_ITS_PARENT}"
    with running(script, **{TOKEN: OWN}) as (leader, (elsewhere, near)):
        life = kin_of(leader, token)
        leader.kill()
        leader.wait()
        assert set(await life.members()) == ({near, elsewhere} if token else {near})


async def test_one_that_is_only_an_entry_for_its_parent_is_no_member() -> None:
    """A process that has ended and was not reaped holds nothing, and no signal reaches it."""
    with running("sleep 60 & echo $!") as (leader, pids):
        life = kin_of(leader)
        leader.kill()  # and nothing reaps it
        while is_alive(leader.pid):
            await trio.sleep(0.005)
        assert start_of(leader.pid) is not None
        assert await life.members() == pids


@pytest.mark.parametrize("off", [-100, 100])
async def test_a_number_that_was_given_to_another_process_is_not_it(off: int) -> None:
    """llamadoze must not end that process or what it has started in its session."""
    with running("sleep 60 & echo $!") as (stranger, _):
        started = start_of(stranger.pid) or 0
        assert await kin.Kin(stranger.pid, started + off, OWN).members() == []


async def test_older_processes_do_not_belong_whatever_they_carry() -> None:
    """A life has started all of its kin, so none of them is older."""
    with running("sleep 60 & echo $!", **{TOKEN: OWN}) as (older, _):
        life = kin.Kin(0, (start_of(older.pid) or 0) + 100_000, OWN)
        assert await life.members() == []


async def test_a_token_alone_finds_a_life_whose_leader_nobody_knows() -> None:
    """The state file may not name the leader."""
    with running(LEFT_BOTH, **{TOKEN: OWN}) as (leader, pids):
        assert set(await kin.Kin(0, 0, OWN).members()) == {leader.pid, *pids}


async def test_a_name_that_looks_like_the_kernels_words_misleads_nobody(tmp_path: Path) -> None:
    """A program may have any name, also one that looks like part of the kernel's line."""
    program = shutil.copy("/bin/sleep", tmp_path / "x) Z 1 1 (y")
    with subprocess.Popen([program, "60"], start_new_session=True) as process:  # noqa: ASYNC220
        try:
            began = time.monotonic()
            while name_of(process.pid) != "x) Z 1 1 (y":
                assert time.monotonic() < began + 5
            entry = entry_of(process.pid)
            assert entry
            assert (entry.parent, entry.session) == (os.getpid(), process.pid)
        finally:
            process.kill()


async def test_tokens_of_one_owner_are_found() -> None:
    """An owner whose name only begins alike does not count, and a command's token does not."""
    with (
        running("true", **{TOKEN: f"{OWNER}.a.1"}),
        running("true", **{TOKEN: f"{OWNER}x.a.1"}),
        running("true", **{COMMAND: f"{OWNER}.a.2"}),
    ):
        table = await table_now()
        assert owned_by(OWNER, table) == {f"{OWNER}.a.1"}
        assert owned_by(OWNER[:-1], table) == set()


def test_a_token_is_read_among_other_variables() -> None:
    """A variable whose name only begins alike does not count."""
    with running("true", **{f"{TOKEN}X": "no", "A": f"{TOKEN}=no"}) as (other, _):
        assert token_of(other.pid) == ""
    with running("true", **{TOKEN: "yes", COMMAND: "other"}) as (process, _):
        assert (token_of(process.pid), token_of(process.pid, COMMAND)) == ("yes", "other")
    assert token_of(process.pid) == ""


@attrs.define(eq=False)
class SlowLooks:
    """Looks at all processes that take as long as the test wants; each has a number."""

    begun: int = 0
    may_end: threading.Event = attrs.field(factory=threading.Event)

    def __call__(self) -> Table:
        self.begun += 1
        number = self.begun
        self.may_end.wait(5)
        return Table({number: Entry(number, 0, 0, 0)}, {}, {})


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> SlowLooks:
    slow = SlowLooks()
    monkeypatch.setattr(census._TABLE, "take", slow)
    return slow


async def _ask(found: dict[str, int], name: str) -> None:
    (found[name],) = (await table_now()).entries


async def _until_begun(looks: SlowLooks) -> None:
    with trio.fail_after(5):
        while not looks.begun:
            await trio.sleep(0.001)


async def test_those_who_ask_at_once_share_one_look(looks: SlowLooks) -> None:
    """A look that began before they asked is too old for them."""
    found: dict[str, int] = {}
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_ask, found, "first")
            await _until_begun(looks)
            for number in range(50):
                nursery.start_soon(_ask, found, f"{number}")
            await trio.testing.wait_all_tasks_blocked(0.01)
            looks.may_end.set()
    assert found.pop("first") == 1
    assert (set(found.values()), len(found), looks.begun) == ({2}, 50, 2)


@pytest.mark.parametrize("which", ["first", "0", "1"])
async def test_one_who_asks_and_leaves_strands_nobody(looks: SlowLooks, which: str) -> None:
    """The other tasks get an answer, even if the task that leaves was looking for them."""
    found: dict[str, int] = {}
    scopes = {name: trio.CancelScope() for name in ("first", "0", "1", "2")}

    async def ask(name: str) -> None:
        with scopes[name]:
            await _ask(found, name)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "first")
            await _until_begun(looks)
            for name in ("0", "1", "2"):
                nursery.start_soon(ask, name)
                await trio.testing.wait_all_tasks_blocked(0.01)
            scopes[which].cancel()
            await trio.testing.wait_all_tasks_blocked(0.01)
            looks.may_end.set()
    assert found.keys() == scopes.keys() - {which}
    assert all(number > 1 for name, number in found.items() if name != "first")


@pytest.mark.parametrize("failure", [OSError("Too many open files"), RuntimeError("no thread")])
async def test_a_look_that_fails_is_made_again(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    """The machine may lack descriptors or threads for a moment."""
    failures = [failure]

    def look() -> Table:
        if failures:
            raise failures.pop()
        return Table({}, {}, {})

    monkeypatch.setattr(census._TABLE, "take", look)
    with trio.fail_after(5):
        assert (await table_now()).entries == {}
    assert failures == []
