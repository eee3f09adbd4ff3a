"""The log's line for each forwarded request, and the id that all lines of a request share.

Owns the words. Where they go is `logformat`'s.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

import structlog

from proxy.forwarding.answer import Answer
from proxy.forwarding.inflight import Call
from proxy.http.errors import Problem
from proxy.http.headers import REQUEST_ID, Header, value_of
from proxy.observing.logformat import bound
from supervisor.states.durations import seconds

log: structlog.stdlib.BoundLogger = structlog.get_logger("proxy")

LONGEST = 200  # characters of a name or a path in the log
GOOD_ID = re.compile(rb"[!-~]{1,128}")


def request_id_of(headers: Sequence[Header]) -> str:
    """Return the client's ``X-Request-Id``; a new one if there is none that a log can hold."""
    given = value_of(headers, REQUEST_ID)
    return given.decode() if GOOD_ID.fullmatch(given) else f"{random.getrandbits(64):016x}"


def report_refusal(method: str, path: str, problem: Problem, request_id: str) -> None:
    """Write the line of a request that was refused before anything of it was looked at."""
    what = f"{method} {path[:LONGEST]} {problem.status}: {problem.message}"
    log.warning(what, status=problem.status, reason=problem.message, request_id=request_id)


def report(call: Call, answer: Answer, now: float) -> None:
    """Write a request's line: served, refused with a reason, or ended early."""
    took = round(now - call.began, 3)
    facts = {
        "model": call.model[:LONGEST],
        "status": answer.outcome,
        "duration_s": took,
        "request_id": call.request_id,
    }
    if call.key:
        facts["key"] = call.key
    what = f"<{call.model[:LONGEST]}> " if call.model else ""
    what += f"{call.method} {call.path[:LONGEST]}"
    after = f"after {seconds(took)}"
    write = bound("proxy")
    if answer.problem:
        reason = answer.problem.message
        write.warning(f"{what} {answer.problem.status} {after}: {reason}", **facts, reason=reason)
    elif answer.said_all:
        write.info(f"{what} {answer.status} {after}", **facts)
    else:
        why = "an operator cancelled it" if call.cancelled else "the client left, or was cut off"
        write.info(f"{what} ended early {after}: {why}", **facts)
