"""Handles, by which a server is found again: how they are written, checked, and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from supervisor.places import handles
from supervisor.places.handles import ElsewhereHandle, Handle, HereHandle, as_data, handle_in

HERE: dict[str, Any] = {
    "place": "here",
    "pid": 5,
    "started": 7,
    "token": "t.a.1",
    "boot": handles.boot(),
}


@pytest.mark.parametrize(
    "handle", [HereHandle(5, 7, "t.a.1"), ElsewhereHandle(), ElsewhereHandle(5, 7)]
)
def test_a_handle_is_read_as_it_was_written(handle: Handle) -> None:
    """The handle is the same after it was written as JSON and read."""
    assert handle_in(json.loads(json.dumps(as_data(handle)))) == handle


@pytest.mark.parametrize(
    "wrong",
    [
        {"pid": 1},
        {"pid": 0},
        {"pid": -5},
        {"pid": True},
        {"pid": 5.0},
        {"pid": "5"},
        {"pid": None},
        {"pid": 1 << 22},
        {"started": 0},
        {"started": "7"},
        {"token": None},
        {"token": 5},
        {"boot": "another"},
        {"boot": None},
        {"place": "there"},
        {"place": None},
        {"place": "elsewhere"},
        {"more": 1},
    ],
)
def test_what_could_stand_for_no_process_is_refused(wrong: dict[str, object]) -> None:
    """No such value may reach a signal."""
    assert handle_in(HERE) is not None
    assert handle_in({**HERE, **wrong}) is None


@pytest.mark.parametrize("missing", HERE)
def test_a_handle_with_a_part_missing_is_refused(missing: str) -> None:
    """No part has a default in the file."""
    assert handle_in({name: HERE[name] for name in HERE if name != missing}) is None


@pytest.mark.parametrize("data", [None, 5, "here", [], [HERE], {}, {"place": "here"}])
def test_what_is_no_handle_at_all_is_refused(data: object) -> None:
    """The value may be anything that JSON allows."""
    assert handle_in(data) is None


def test_a_process_means_nothing_after_a_boot_and_a_server_elsewhere_still_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a boot, only the command that started the server elsewhere is gone."""
    process, elsewhere = as_data(HereHandle(5, 7, "")), as_data(ElsewhereHandle(5, 7))
    found = handle_in(elsewhere)
    assert isinstance(found, ElsewhereHandle)
    assert found.command == HereHandle(5, 7, "")
    monkeypatch.setattr(handles, "BOOT_ID", tmp_path / "boot")
    (tmp_path / "boot").write_text("another\n")
    assert handle_in(process) is None
    found = handle_in(elsewhere)
    assert isinstance(found, ElsewhereHandle)
    assert found.command is None


@pytest.mark.parametrize("wrong", [{"pid": "5"}, {"started": None}, {"boot": 1}, {"pid": True}])
def test_an_odd_server_elsewhere_is_refused(wrong: dict[str, object]) -> None:
    """The values of its command are checked, although llamadoze needs little of the handle."""
    assert handle_in({**as_data(ElsewhereHandle(5, 7)), **wrong}) is None


def test_a_server_elsewhere_without_a_command_has_none() -> None:
    """A pid of zero is no process."""
    assert ElsewhereHandle().command is None
