"""The file that outlives the daemon: its content, its bounds, and the effects of a broken file."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio

from proxy.forwarding.tokens import Tokens
from proxy.history import database, store
from proxy.history.finished import Finished
from proxy.history.inquiry import page_in, stats_in
from proxy.history.paging import Asked, page_of, stats_of
from proxy.history.spans import DAY, Bounds
from tests.peers.client import ask, chat
from tests.proxy.daemon import daemon, stub


def finished(number: int, **more: Any) -> Finished:
    facts = {
        "id": number,
        "at": 1000.0 + number,
        "model": "ab"[number % 2],
        "method": "POST",
        "path": "/v1/chat/completions",
        "status": 200,
        "content_type": "text/event-stream",
        "tokens": Tokens(number, 2 * number or None, None, None, None, None, number or None),
        "seconds": 1.5,
        "waited": 0.5,
        "first_byte": 0.75,
        "size": 10,
        "error": "it broke" if number % 5 == 0 else "",
        "request": f"r{number}",
    }
    return Finished(**{**facts, **more})


QUESTIONS = [
    Asked(),
    Asked(page=2, limit=3),
    Asked(sort="generated", descending=False),
    Asked(sort="gen_speed"),
    Asked(models=frozenset({"a"}), min_id=3, max_id=9),
    Asked(since=1004, until=1008),
    Asked(text="broke"),
    Asked(failed=True),
]


@pytest.mark.parametrize("asked", QUESTIONS)
def test_the_file_answers_as_memory_does(tmp_path: Path, asked: Asked) -> None:
    """Every query gives the same rows in the same order."""
    requests = [finished(number) for number in range(20)]
    with database.opened(tmp_path / "h.db") as file:
        database.write(file, requests, [])
        found = page_in(file, asked, lambda _: False)
        assert found == page_of(reversed(requests), asked, lambda _: False)
        assert stats_in(file, []) == stats_of(requests)


def test_a_request_comes_out_as_it_went_in(tmp_path: Path) -> None:
    """No field is lost."""
    requests = [finished(number) for number in range(3)]
    with database.opened(tmp_path / "h.db") as file:
        database.write(file, requests, [(1, "spans", 5.0, '{"id": 1}')])
        assert database.last_requests(file, 2) == requests[1:]
        assert database.last_rows(file, 0)["spans"] == [{"id": 1}]
        assert database.last_numbers(file) == (2, 1)


def test_the_oldest_go_when_it_is_too_old_or_too_large(tmp_path: Path) -> None:
    """The bounds are days and MB; the file becomes smaller on the disk."""
    now = time.time()
    path = tmp_path / "h.db"
    with database.opened(path) as file:
        many = [finished(n, at=now - (5000 - n), error="x" * 400) for n in range(5000)]
        database.write(file, [*many, finished(9999, at=now - 3 * DAY)], [])
        database.forget_old(file, Bounds(days=2))
        assert database.last_requests(file, 9999)[-1].id == 4999
        database.forget_old(file, Bounds(megabytes=1))
        left = database.last_requests(file, 9999)
        assert 500 < len(left) < 4000
        assert left[-1].id == 4999
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert path.stat().st_size < 1_400_000


async def test_a_daemon_goes_on_from_what_the_last_one_kept(tmp_path: Path) -> None:
    """The numbers and the last day continue; the earlier daemon wrote its last rows as it ended."""
    kept = {"path": str(tmp_path / "h.db")}
    async with daemon({"a": stub()}, store=kept) as running:
        await chat(running.port, "a")
    async with daemon({"a": stub()}, store=kept) as running:
        await chat(running.port, "a")
        rows = (await ask(running.port, "GET", "/api/metrics/activity")).json()["data"]
        assert [row["id"] for row in rows] == [2, 1]
        told = (await ask(running.port, "GET", "/api/timeline")).json()
        begins = [one["state"] for one in told["spans"] if one["model"] == "a"]
        assert begins.count("ready") == 2
        assert len({one["id"] for one in told["spans"]}) == len(told["spans"])


async def test_what_is_kept_of_llama_swap_is_left_alone(tmp_path: Path) -> None:
    """You can name llama-swap's file, because our tables have other names."""
    path = tmp_path / "activity.db"
    with closing(sqlite3.connect(path)) as theirs:
        theirs.execute("CREATE TABLE activity (id INTEGER)")
        theirs.execute("INSERT INTO activity VALUES (7)")
        theirs.commit()
    async with daemon({"a": stub()}, store={"path": str(path)}) as running:
        await chat(running.port, "a")
    with closing(sqlite3.connect(path)) as theirs:
        assert theirs.execute("SELECT * FROM activity").fetchall() == [(7,)]


@pytest.mark.parametrize("fault", ["no database", "no file", "full"])
async def test_a_broken_file_costs_history_and_no_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_lines: list[dict[str, Any]], fault: str
) -> None:
    """The log reports the fault once, and the history stays in memory."""
    monkeypatch.setattr(store, "TOGETHER", 0.01)
    path = Path("/dev/full") if fault == "no file" else tmp_path / "h.db"
    if fault == "no database":
        path.write_bytes(b"no database at all" * 100)
    elif fault == "full":
        monkeypatch.setattr(database, "write", no_room)
    async with daemon({"a": stub()}, store={"path": str(path)}) as running:
        for _ in range(3):
            assert (await chat(running.port, "a")).status == 200
            await trio.sleep(0.05)
        rows = (await ask(running.port, "GET", "/api/metrics/activity")).json()["data"]
        assert [row["id"] for row in rows] == [3, 2, 1]
    told = [line for line in log_lines if "Cannot use" in str(line["event"])]
    assert len(told) == 1


def no_room(*_: object) -> None:
    raise sqlite3.OperationalError("database or disk is full")


async def test_numbers_go_on_from_all_that_is_in_the_file(tmp_path: Path) -> None:
    """Rows older than the last day count too, so that nothing is overwritten."""
    path = tmp_path / "h.db"
    old = time.time() - 5 * DAY
    with database.opened(path) as file:
        database.write(file, [finished(7, at=old)], [(50, "spans", old, '{"id": 50}')])
    async with daemon({"a": stub()}, store={"path": str(path)}) as running:
        await chat(running.port, "a")
    with database.opened(path) as file:
        assert [one.id for one in database.last_requests(file, 9)] == [7, 8]
        assert database.last_rows(file, 0)["spans"][0] == {"id": 50}


async def test_a_file_that_cannot_be_read_at_the_start_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_lines: list[dict[str, Any]]
) -> None:
    """The numbers in the file are unknown, so a write could overwrite its rows."""
    monkeypatch.setattr(database, "BUSY", 0.1)
    path = tmp_path / "h.db"
    with database.opened(path) as file:
        database.write(file, [finished(1)], [])
        file.execute("BEGIN EXCLUSIVE")
        async with daemon({"a": stub()}, store={"path": str(path)}) as running:
            file.rollback()
            await chat(running.port, "a")
    with database.opened(path) as file:
        assert database.last_requests(file, 9) == [finished(1)]
    said = [str(line["event"]) for line in log_lines]
    assert any("llamadoze writes nothing to this store until" in line for line in said)


async def test_another_file_gets_only_what_comes_after_it_was_named(tmp_path: Path) -> None:
    """Earlier rows stay in the first file; the numbers continue from both files."""
    one, other = tmp_path / "one.db", tmp_path / "other.db"
    with database.opened(other) as file:
        database.write(file, [finished(30)], [])
    async with daemon({"a": stub()}, store={"path": str(one)}) as running:
        await chat(running.port, "a")
        history = running.history
        history.store.change(other, Bounds())
        history._go_on_from_the_file()
        await chat(running.port, "a")
        rows = (await ask(running.port, "GET", "/api/metrics/activity")).json()["data"]
        assert [row["id"] for row in rows] == [31, 30]
    with database.opened(one) as file:
        assert [one.id for one in database.last_requests(file, 9)] == [1]


async def test_a_number_that_no_file_can_hold_costs_nothing(tmp_path: Path) -> None:
    """A model server may report any number of tokens."""
    async with daemon({"a": stub()}, store={"path": str(tmp_path / "h.db")}) as running:
        body = b'{"model": "a", "raw": true, "usage": {"prompt_tokens": 1%b}}' % (b"0" * 40)
        await ask(running.port, "POST", "/v1/completions", body)
        await chat(running.port, "a")
        rows = (await ask(running.port, "GET", "/api/metrics/activity")).json()["data"]
    assert [row["tokens"]["input_tokens"] for row in rows] == [-1, -1]
