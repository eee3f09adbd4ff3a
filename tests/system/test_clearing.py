"""The next daemon removes state folders of configurations that are gone, and no others."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

from tests.proxy.daemon import stub
from tests.system.daemon import started, wait_for, write


def lived(file: Path, state: Path, *, kill: bool = False) -> Path:
    """Run a daemon for a moment; return the state folder that it leaves."""
    file.parent.mkdir(parents=True, exist_ok=True)
    config = write(file.parent, models={"a": stub()})
    before = set(state.glob("llamadoze/*"))
    with started("--config", config, env={"XDG_STATE_HOME": str(state)}) as daemon:
        if kill:
            daemon.chat("a")
        daemon.end(signal.SIGKILL if kill else signal.SIGTERM)
    (folder,) = set(state.glob("llamadoze/*")) - before
    return folder


def test_the_state_of_files_that_are_gone_is_removed(tmp_path: Path) -> None:
    """One log line names them; state of files that exist, or may be unmounted, is kept."""
    state, files = tmp_path / "state", tmp_path / "files"
    gone = lived(files / "gone" / "config.yaml", state)
    kept = lived(files / "kept" / "config.yaml", state)
    unmounted = lived(files / "disk" / "config.yaml", state)
    shutil.rmtree(files / "gone")
    (files / "disk" / "config.yaml").unlink()  # as if nothing were mounted there
    config = write(tmp_path, models={"a": stub()})
    with started("--config", config, env={"XDG_STATE_HOME": str(state)}) as daemon:
        wait_for(lambda: daemon.said("Removed the state of 1 configuration whose files are gone"))
        assert not gone.exists()
        assert kept.exists()
        assert unmounted.exists()
        (line,) = [one for one in daemon.log() if "files" in one and "Removed" in one["event"]]
        assert line["files"] == [str(files / "gone" / "config.yaml")]


def abandoned(tmp_path: Path) -> Path:
    """Return a state folder whose configuration is gone and whose daemon has ended."""
    folder = lived(tmp_path / "first" / "config.yaml", tmp_path / "state")
    shutil.rmtree(tmp_path / "first")
    return folder


def removed_beside(tmp_path: Path) -> list[str]:
    """Run two more daemons; return the files that the second finds gone, except the control."""
    state, control = tmp_path / "state", tmp_path / "control" / "config.yaml"
    lived(control, state)
    shutil.rmtree(control.parent)
    config = write(tmp_path, models={"b": stub()})
    with started("--config", config, env={"XDG_STATE_HOME": str(state)}) as daemon:
        wait_for(lambda: daemon.said("Removed the state"))
        (line,) = [one for one in daemon.log() if "Removed" in one["event"]]
    return [file for file in line["files"] if file != str(control)]


@pytest.mark.parametrize(
    "state",
    ["broken", '{"models": [{"model": "a"}]}', '{"models": [{"handle": {"place": "elsewhere"}}]}'],
)
def test_what_cannot_be_understood_may_be_of_use(tmp_path: Path, state: str) -> None:
    """A state that llamadoze cannot read may be of another version, whose processes may live."""
    folder = abandoned(tmp_path)
    (folder / "state.json").write_text(state)
    assert removed_beside(tmp_path) == []
    assert folder.exists()


def test_processes_of_an_earlier_boot_live_no_more(tmp_path: Path) -> None:
    """Processes of an earlier boot are gone, so their state folder is removed, too."""
    folder = abandoned(tmp_path)
    handle = {"place": "here", "pid": 7, "boot": "an earlier one"}
    (folder / "state.json").write_text(json.dumps({"models": [{"handle": handle}]}))
    removed_beside(tmp_path)
    assert not folder.exists()


@pytest.mark.parametrize("file", ["/mnt/nas/config.yaml", "LINK/models/config.yaml"])
def test_files_that_are_out_of_reach_are_not_gone(tmp_path: Path, file: str) -> None:
    """The file may be on a disk that is not mounted, or behind a link to one."""
    folder = abandoned(tmp_path)
    (tmp_path / "link").symlink_to("/nowhere/at/all")
    told = json.loads((folder / "daemon.json").read_text())
    told["files"] = [file.replace("LINK", str(tmp_path / "link"))]
    (folder / "daemon.json").write_text(json.dumps(told))
    assert removed_beside(tmp_path) == []
    assert folder.exists()


def test_what_tells_of_a_daemon_of_another_machine_stays(tmp_path: Path) -> None:
    """The other machine's daemon may live; on this machine llamadoze sees that none does."""
    folder = lived(tmp_path / "first" / "config.yaml", tmp_path / "state")
    told = json.loads((folder / "daemon.json").read_text())
    for name, host in (("at-theirs", "another"), ("at-ours", told["host"])):
        (folder.parent / name).mkdir()
        (folder.parent / name / "daemon.json").write_text(json.dumps({**told, "host": host}))
    assert removed_beside(tmp_path) == []
    assert (folder.parent / "at-theirs").exists()
    assert not (folder.parent / "at-ours").exists()


@pytest.mark.parametrize("case", ["another machine", "a link"])
def test_what_is_not_ours_stays(tmp_path: Path, case: str) -> None:
    """Machines may share a home folder, and a folder may be a link to elsewhere."""
    folder = abandoned(tmp_path)
    if case == "a link":
        elsewhere = tmp_path / "elsewhere"
        folder.rename(elsewhere)
        folder.symlink_to(elsewhere)
    else:
        told = json.loads((folder / "daemon.json").read_text())
        (folder / "daemon.json").write_text(json.dumps({**told, "host": "another"}))
    assert removed_beside(tmp_path) == []
    assert (folder / "daemon.json").exists()


@pytest.mark.parametrize("case", ["in use", "processes", "another state folder"])
def test_what_somebody_may_need_stays(tmp_path: Path, case: str) -> None:
    """Examples are a daemon that still runs, processes that a daemon left, and other folders."""
    state = tmp_path / "state"
    file = tmp_path / "first" / "config.yaml"
    env = {"XDG_STATE_HOME": str(state)}
    if case == "in use":
        file.parent.mkdir()
        with started("--config", write(file.parent, models={"a": stub()}), env=env) as first:
            shutil.rmtree(file.parent)
            assert removed_beside(tmp_path) == []
            assert first.chat("a")[0] == 200
        return
    folder = lived(file, state, kill=case == "processes")
    text = file.read_text()
    shutil.rmtree(file.parent)
    if case == "another state folder":
        config = write(tmp_path, models={"b": stub()})
        own = ("--state-dir", str(tmp_path / "own"))
        with started("--config", config, *own, env=env) as second:
            assert second.chat("b")[0] == 200
    else:
        assert removed_beside(tmp_path) == []
    assert folder.exists()
    if case == "processes":  # the next daemon of that file ends them
        file.parent.mkdir()
        file.write_text(text)
        with started("--config", str(file), env=env) as third:
            assert third.said("Ending the process")
