"""The state file: what it leaves to the next daemon, in which form, and when it is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest

from supervisor.places.handles import ElsewhereHandle, Handle, HereHandle, StepHandle, boot
from supervisor.states.snapshot import Snapshot
from supervisor.states.table import ENDED, HAS_PROCESS, State
from supervisor.succession import records as records_module
from supervisor.succession.records import Record, Records, fingerprint, open_records, read_records
from tests.supervisor.places.servers import model_of

MODEL = model_of(cmd="serve", proxy="http://127.0.0.1:9")
OTHER = attrs.evolve(MODEL, id="b")
READY = Snapshot(model="a", state=State.READY, handle=HereHandle(5, 7, "t.a.1"))
OLD = {"model": "a", "pid": 5, "started": 7, "port": None, "state": "ready", "logs": True}


def read(folder: Path) -> dict[str, Record]:
    return {record.model: record for record in read_records(folder / "state.json")}


@pytest.mark.parametrize("handle", [HereHandle(5, 7, "t.a.1"), ElsewhereHandle(5, 7)])
@pytest.mark.parametrize("state", [one for one in State if one in HAS_PROCESS])
def test_a_server_is_read_as_it_was_noted(tmp_path: Path, handle: Handle, state: State) -> None:
    """This covers each state in which a model has a server."""
    records = Records(tmp_path)
    snapshot = attrs.evolve(READY, handle=handle, state=state)
    assert records.note(MODEL, snapshot, logs=True)
    assert read(tmp_path) == {
        "a": Record(
            model="a",
            handle=handle,
            port=MODEL.port,
            state=state.value,
            fingerprint=fingerprint(MODEL),
            logs=True,
        )
    }


@pytest.mark.parametrize("state", [one for one in State if one in ENDED])
def test_a_server_that_has_ended_is_left_out(tmp_path: Path, state: State) -> None:
    """The other servers stay in the file."""
    records = Records(tmp_path)
    records.note(MODEL, READY, logs=True)
    records.note(OTHER, READY, logs=True)
    records.note(MODEL, attrs.evolve(READY, state=state), logs=False)
    assert read(tmp_path).keys() == {"b"}


def test_the_file_is_written_once_for_each_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only records that have changed are turned into text again."""
    written: list[str] = []
    worded: list[str] = []
    write, text = records_module.write_anew, records_module._text

    def note_write(file: Path, words: str) -> None:
        written.append(words)
        write(file, words)

    def note_text(record: Record) -> str:
        worded.append(record.model)
        return text(record)

    monkeypatch.setattr(records_module, "write_anew", note_write)
    monkeypatch.setattr(records_module, "_text", note_text)
    records = Records(tmp_path)
    for _ in range(3):
        records.note(MODEL, READY, logs=True)
        records.note(OTHER, READY, logs=True)
        records.note(MODEL, attrs.evolve(READY, in_flight=3, idle_since=9), logs=True)
    assert len(written) == 2
    worded.clear()
    records.note(MODEL, attrs.evolve(READY, state=State.ASLEEP), logs=True)
    assert (len(written), worded) == (3, ["a"])
    assert {name: one.state for name, one in read(tmp_path).items()} == {
        "a": "asleep",
        "b": "ready",
    }


def test_what_is_kept_is_named_until_its_model_has_its_say(tmp_path: Path) -> None:
    """A daemon that is killed while it begins must not lose the servers that it inherited."""
    Records(tmp_path).note(MODEL, READY, logs=True)
    records = Records(tmp_path)
    records.keep(read(tmp_path)["a"])
    records.note(OTHER, READY, logs=True)
    assert read(tmp_path).keys() == {"a", "b"}
    records.note(MODEL, attrs.evolve(READY, state=State.STOPPED), logs=True)
    assert read(tmp_path).keys() == {"b"}


def test_a_write_that_failed_is_made_again_with_the_next_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_lines: list[dict[str, object]]
) -> None:
    """The file is written even if nothing has changed since, and the log says so once."""
    folder = tmp_path / "state"
    records = Records(folder)
    assert not records.note(MODEL, READY, logs=True)
    assert not records.note(OTHER, READY, logs=True)
    folder.mkdir()
    assert records.note(OTHER, READY, logs=True)
    assert read(folder).keys() == {"a", "b"}
    assert len(log_lines) == 1


def test_a_file_of_an_older_llamadoze_is_understood(tmp_path: Path) -> None:
    """In such a file the pid is at the top of the record, and the boot at the top of the file."""
    old = {**OLD, "fingerprint": "x"}
    write(tmp_path, {"boot": boot(), "models": [old]})
    (record,) = read_records(tmp_path / "state.json")
    assert record.handle == HereHandle(5, 7, "")
    assert (record.model, record.state, record.fingerprint) == ("a", "ready", "x")


def test_a_file_of_an_older_llamadoze_and_another_boot_is_left_out(tmp_path: Path) -> None:
    """Its pids now stand for other processes."""
    write(tmp_path, {"boot": "another", "models": [{**OLD, "fingerprint": "x"}]})
    assert read_records(tmp_path / "state.json") == ()


def write(folder: Path, data: Any) -> None:
    (folder / "state.json").write_text(data if isinstance(data, str) else json.dumps(data))


GOOD = {
    "model": "a",
    "handle": {"place": "here", "pid": 5, "started": 7, "token": "", "boot": boot()},
    "port": 9,
    "state": "ready",
    "fingerprint": "x",
    "logs": True,
}


@pytest.mark.parametrize(
    "wrong",
    [
        {"handle": {**GOOD["handle"], "pid": 1}},  # type: ignore[dict-item]
        {"handle": None},
        {"port": "9"},
        {"port": True},
        {"state": "stopped"},
        {"state": "odd"},
        {"state": 5},
        {"state": []},
        {"model": None},
        {"fingerprint": 1},
        {"logs": 1},
        {"more": 1},
    ],
)
def test_one_that_is_no_record_is_left_out_and_the_others_stay(
    tmp_path: Path, wrong: dict[str, object], log_lines: list[dict[str, object]]
) -> None:
    """The log says that a record was left out."""
    write(tmp_path, {"models": [{**GOOD, **wrong}, {**GOOD, "model": "b"}]})
    assert read(tmp_path).keys() == {"b"}
    assert len(log_lines) == 1


@pytest.mark.parametrize(
    "data",
    [
        "",
        "{",
        "[]",
        "null",
        "5",
        '{"models": 5}',
        '{"models": null}',
        "{}",
        "[" * 100_000,
        '"\ud800"',
    ],
)
def test_what_is_no_state_file_is_none(
    tmp_path: Path, data: str, log_lines: list[dict[str, object]]
) -> None:
    """The log says so, and nothing from the file is used."""
    (tmp_path / "state.json").write_text(data, errors="surrogatepass")
    assert read_records(tmp_path / "state.json") == ()
    assert len(log_lines) == 1


@pytest.mark.parametrize("odd", [None, 5, "a", [], {}, {"pid": 5}, {"pid": 5, "started": 1}])
def test_odd_records_are_left_out(tmp_path: Path, odd: object) -> None:
    """Anything may stand in the place of a record, however old it looks."""
    write(tmp_path, {"boot": boot(), "models": [odd, GOOD]})
    assert read(tmp_path).keys() == {"a"}


def test_one_folder_is_one_daemons(tmp_path: Path, log_lines: list[dict[str, object]]) -> None:
    """The next daemon gets the folder when the first has ended, and has the same owner name."""
    with open_records(tmp_path) as records:
        assert records
        owner = records.owner
        with open_records(tmp_path) as second:
            assert second is None
        records.note(MODEL, READY, logs=True)
    assert "Another llamadoze has the state folder" in f"{log_lines}"
    with open_records(tmp_path) as records:
        assert records
        assert [one.model for one in records.found] == ["a"]
        assert records.owner == owner
    with open_records(tmp_path / "other") as records:
        assert records
        assert records.owner != owner


def test_what_marks_jobs_of_a_cluster_is_of_the_folder_alone(tmp_path: Path) -> None:
    """Login nodes may share the folder, and nodes of one image may each have their own."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    mark = Records(one).owner_in_clusters
    assert Records(one).owner_in_clusters == mark
    assert Records(other).owner_in_clusters != mark
    assert Records(tmp_path / "none").owner_in_clusters == Records(tmp_path / "none").owner


def test_a_server_that_is_being_taken_over_stays_noted(tmp_path: Path) -> None:
    """A daemon that is killed at that time loses nothing."""
    step = StepHandle(
        **dict.fromkeys(("cluster", "token", "node", "host", "address"), "x"),
        job="1",
        step="1.0",
        port=1,
        entrance=2,
        key="00",
    )
    record = Record(model="m", handle=step, port=0, state="asleep", fingerprint="x", logs=True)
    records = Records(tmp_path)
    records.keep(record)
    records.note(OTHER, READY, logs=True)
    queued = attrs.evolve(READY, model="m", state=State.QUEUED, handle=None)
    records.note(attrs.evolve(MODEL, id="m"), queued, logs=True)
    found = {one.model: one.state for one in read_records(records.file)}
    assert found["m"] == "asleep"
