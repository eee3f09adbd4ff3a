"""The log's line for each forwarded request, and the id that all lines of a request share.

Owns the words of the lines. `logformat` writes them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping

import structlog

from proxy.forwarding.answer import Answer
from proxy.forwarding.inflight import Call
from proxy.forwarding.tokens import Tokens
from proxy.http.errors import Problem
from proxy.http.headers import REQUEST_ID, value_of
from proxy.observing.logformat import OF_REQUESTS
from supervisor.states.durations import seconds

log: structlog.stdlib.BoundLogger = structlog.get_logger("proxy")

LONGEST = 200  # characters of a name or a path in the log
STREAM = b"text/event-stream"
GOOD_ID = re.compile(rb"[!-~]{1,128}")


def request_id_of(fields: Mapping[bytes, bytes]) -> str:
    """Return the client's ``X-Request-Id``, or a new id if that is missing or unfit for a log."""
    given = fields.get(REQUEST_ID)
    if given is not None and GOOD_ID.fullmatch(given):
        return given.decode()
    return f"{random.getrandbits(64):016x}"


def report_refusal(
    method: str, path: str, client: str, problem: Problem, request_id: str, key: str
) -> None:
    """Write the line of a request that was refused before llamadoze read its contents."""
    what = f"{method} {path[:LONGEST]} {problem.status}: {problem.message}"
    known = {"key": key} if key else {}
    log.warning(
        what,
        method=method,
        path=path[:LONGEST],
        client=client,
        status=problem.status,
        reason=problem.message,
        request_id=request_id,
        **known,
    )


def report(call: Call, answer: Answer, tokens: Tokens, now: float) -> None:
    """Write the line of a request that was served, was refused, or ended early."""
    took, model = round(now - call.began, 3), call.model[:LONGEST]
    facts = {
        "model": model,
        "method": call.method,
        "path": call.path[:LONGEST],
        "client": call.client,
        "status": answer.outcome,
        "duration_s": took,
        "request_id": call.request_id,
        "stream": value_of(call.response_headers, b"content-type").startswith(STREAM),
    }
    if call.waited is not None:
        facts["queue_s"] = round(call.waited, 3)
    if call.first_byte is not None:
        facts["first_byte_s"] = round(call.first_byte - call.began, 3)
    if tokens.prompt is not None:
        facts["tokens_in"] = tokens.prompt
    if tokens.generated is not None:
        facts["tokens_out"] = tokens.generated
    if call.key:
        facts["key"] = call.key
    request = f"{call.method} {call.path[:LONGEST]}"
    what = f"<{model}> {request}" if model else request
    after = f"after {seconds(took)}"
    if answer.problem:
        facts["reason"] = answer.problem.message
        text = f"{what} {answer.problem.status} {after}: {answer.problem.message}"
        OF_REQUESTS.write("warning", text, facts)
    elif answer.said_all:
        OF_REQUESTS.write("info", f"{what} {answer.status} {after}", facts)
    else:
        disconnected = "the client disconnected or was cut off"
        why = "an operator cancelled it" if call.cancelled else disconnected
        OF_REQUESTS.write("info", f"{what} ended early {after}: {why}", facts)
