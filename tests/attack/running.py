"""Run attacks one after the other, and judge what they did.

This module owns the limits and the daemon under attack. If a long wait does not occur again in
another try, the machine caused it, not the daemon.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import attrs
import trio

from tests.attack.behaviour import behaviours
from tests.attack.inputs import FILTERED, UNTOUCHED, Input, inputs
from tests.attack.measuring import Attack, Measured, answer_to, measured
from tests.conftest import stub_command
from tests.system.daemon import Process, started, write

LONGEST_WAIT = 0.02  # seconds
MOST_TIMES = 4  # times the size of what was sent: the most memory that an attack may cost
MEASURING = 8 << 20  # bytes that the memory may seem to grow by, whatever is done
LARGE = 1 << 20  # bytes; a larger input leaves free heap, which would hide the next input's memory
TRIES = 10
HEADER = f"{'attack':52} {'sent':>10} {'answer':>7} {'wait':>8} {'memory':>9}"


@attrs.frozen
class Verdict:
    """What one attack did, and what was wrong, if anything was."""

    name: str
    size: int
    measured: Measured
    fault: str = ""


def row_of(verdict: Verdict) -> str:
    """Return the table's row for a verdict."""
    found = verdict.measured
    wait, memory = f"{found.wait * 1000:.1f} ms", f"{found.memory / (1 << 20):.1f} MiB"
    row = f"{verdict.name[:52]:52} {verdict.size:>10} {found.answer:>7} {wait:>8} {memory:>9}"
    return f"{row}  {verdict.fault}".rstrip()


def attacked(folder: Path, size: int, clients: int) -> Iterator[Verdict]:
    """Attack a daemon with all inputs and behaviours, and yield a verdict for each.

    Args:
        folder: where the daemon's configuration goes.
        size: bytes of a body.
        clients: how many clients misbehave at a time.
    """
    target = _Target(folder)
    with target:
        for one in inputs(size):
            if len(one.data) > LARGE:
                target.renew()
            yield target.judge(one)
        for name, behave in behaviours(clients):
            yield target.judge(Input(name, b"", (200, 429)), behave)
        yield Verdict("the log has no traceback", 0, Measured(), target.tracebacks())


@attrs.define(eq=False)
class _Target:
    """The daemon that is attacked."""

    folder: Path
    _stack: ExitStack = attrs.field(factory=ExitStack, init=False)
    _logs: list[Process] = attrs.field(factory=list, init=False)

    def __enter__(self) -> None:
        self.renew()

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def renew(self) -> None:
        """Replace the daemon by a new process."""
        self._stack.close()
        models = {name: _model() for name in (UNTOUCHED, FILTERED)}
        models[FILTERED]["filters"] = {
            "setParams": {"temperature": 1, "max_tokens?": 1, "x.0.a": 1},
            "stripParams": "top_p, x.y",
        }
        config = write(self.folder, models=models, maxWait=1)
        self._logs.append(self._stack.enter_context(started("--config", config)))
        self._logs[-1].running()  # loads what all views need, so that no attack is blamed for it

    def judge(self, one: Input, attack: Attack | None = None) -> Verdict:
        """Attack until the wait is short, at most `TRIES` times."""
        daemon = self._logs[-1]
        act = attack or partial(answer_to, data=one.data)
        found = _best_of(act, daemon)
        return Verdict(one.name, len(one.data), found, _fault_of(one, found))

    def tracebacks(self) -> str:
        """Return the first line of a traceback in the daemons' logs, or nothing."""
        lines = [line for daemon in self._logs for line in daemon.lines if "Traceback" in line]
        return lines[0] if lines else ""


def _model() -> dict[str, object]:
    return {
        "cmd": stub_command("--port", "${PORT}"),
        "proxy": "http://127.0.0.1:${PORT}",
    }


def _best_of(attack: Attack, daemon: Process) -> Measured:
    best = Measured(wait=float("inf"))
    for _ in range(TRIES):
        found = trio.run(measured, attack, daemon.port, daemon.process.pid)
        most = max(found.memory, best.memory)
        best = min(best, found, key=lambda one: one.wait)
        best.memory = most
        if best.wait <= LONGEST_WAIT:
            break
    return best


def _fault_of(one: Input, found: Measured) -> str:
    if found.wait > LONGEST_WAIT:
        return "OTHERS WAIT"
    if found.memory > MOST_TIMES * len(one.data) + MEASURING:
        return "TOO MUCH MEMORY"
    if not found.answer.isdecimal() or int(found.answer) not in one.answers:
        return "WRONG ANSWER"
    return ""
