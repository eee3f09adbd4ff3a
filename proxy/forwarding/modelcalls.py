"""What the daemon itself asks of a model server: whether it is ready, how far, to sleep or to wake.

Owns the form of these requests and which answers are good. How often and for how long they are made
is decided by the supervisor.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from math import isnan
from urllib.parse import quote, urlsplit

import attrs
import trio

from configschema import Call, Model
from proxy.http.headers import Header
from proxy.http.heads import Request
from proxy.http.origin import Origin
from proxy.http.parsing import UpstreamError
from proxy.http.upstream import Response, Upstream
from supervisor.sleep.contact import Answer, Contact, Token

OK = 200  # llama-swap takes no other status for ready
MOST_SAID = 200  # characters of an answer that are shown
LONGEST_ANSWER = 1024 * 1024  # bytes that are looked at
QUESTION = "What is 2 + 2? Answer with one digit."
ONE_TOKEN: dict[str, dict[str, object]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": QUESTION}]},
    "/v1/completions": {"prompt": QUESTION},
}
UNSUITED = (400, 401, 403, 404, 405, 422, 501)  # it will never answer this question, as it is asked
NONE: Mapping[str, str] = {}
LOCKED = ": the model server wants a key; give it in controlHeaders"
FIRST_STAGE = "text_model"
OF_A_LATER_STAGE = 0.1  # of a load, as llama.cpp's own page has it; the text model is the rest
LONGEST_WAIT = 1  # seconds for the body of an answer whose status says enough


def origin_of(model: Model) -> Origin:
    """Return where a model's server listens, as it is now."""
    return Origin.of(model.proxy, model.entrance)


async def ask_if_ready(model: Model) -> str | None:
    """Return None if the model server answers its check with 200, else what it did instead."""
    target = "/" + model.check_endpoint.lstrip("/")
    try:
        async with _exchange(
            "GET", origin_of(model), target, "", model.control_headers
        ) as response:
            if response.status == OK:
                return None
            return f"{model.check_endpoint} answered {_status(response)}"
    except UpstreamError as error:
        return str(error)


async def make_call(step: Call) -> str | None:
    """Make one step into sleep or out of it; return None for success, else what the answer was."""
    _, failure = await _answer_to(step)
    return failure


async def read_answer(step: Call) -> Answer:
    """Make one request and return the JSON of its answer, or what the answer was instead."""
    text, failure = await _answer_to(step)
    try:
        return Answer(json.loads(text) if failure is None else None, failure)
    except (ValueError, RecursionError):  # it is no JSON, or nested beyond measure
        return Answer(failure=f"answered {_line(text)}, which is no JSON")


async def _answer_to(step: Call) -> tuple[bytes, str | None]:
    """Return the body of an answer, and why it is no good one."""
    url = urlsplit(step.url)
    origin = attrs.evolve(Origin.of(step.url, step.entrance), base_path="")
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    try:
        async with _exchange(step.method, origin, target, step.body, step.headers) as response:
            if not _is_expected(response.status, step.expect):
                said = await _beginning(response)
                return b"", f"answered {_status(response, said)}"
            text = await _whole(response)
            return text, _judge(text, step)
    except UpstreamError as error:
        return b"", f"failed: {error}"


def _is_expected(status: int, expect: Sequence[int]) -> bool:
    return status in expect if expect else 200 <= status < 300


def _status(response: Response, said: str = "") -> str:
    """Return a status in words: what was said with it, and what the daemon may lack."""
    text = f"{response.status} ({said})" if said else f"{response.status}"
    return text + (LOCKED if response.status in (401, 403) else "")


def _judge(text: bytes, step: Call) -> str | None:
    """Return what is wrong with an answer of which something must hold, or None."""
    if step.holds and not _is_true(step.holds, text):
        return f"answered {_line(text)}, of which does not hold: {step.holds}"
    if step.idle_metric and (running := _sum_of(step.idle_metric, text)):
        return f"answered that {running:g} requests run"
    return None


def _sum_of(metric: str, text: bytes) -> float | None:
    """Return the sum of a metric's samples in Prometheus' text; None if it is not known."""
    from prometheus_client.parser import text_string_to_metric_families  # takes 20 ms

    start = re.compile(re.escape(metric) + r"[\s{]")
    found = [line for line in text.decode(errors="replace").split("\n") if start.match(line)]
    try:  # of these lines only: others may be what the parser does not take
        families = [*text_string_to_metric_families("\n".join(found) + "\n")]
    except (ValueError, LookupError):
        return None
    total = sum(one.value for family in families for one in family.samples)
    return None if isnan(total) else total


async def _whole(response: Response) -> bytes:
    """Read a body to its end, which says that it is done; return how it begins."""
    text = b""
    while piece := await response.read():
        text += piece[: LONGEST_ANSWER - len(text)]
    return text


def _is_true(holds: str, text: bytes) -> bool:
    import jmespath  # few configurations have an expression

    try:
        return jmespath.search(holds, json.loads(text)) is True
    except jmespath.exceptions.JMESPathError:
        return False
    # It is no JSON, or nested beyond measure; or a function is not made for what it is given.
    except (ValueError, TypeError, ArithmeticError, RecursionError):
        return False


async def ask_for_one_token(model: Model, route: str = "") -> Token:
    """Ask a model for one token, always in the same words.

    A model of another kind than chat or text has nothing to say, which is a failure.

    Args:
        model: who is asked.
        route: where; else at the first route that answers.
    """
    tokens: list[Token] = []
    for target in [route] if route else ONE_TOKEN:
        token = await _ask_for_a_token(model, target, ONE_TOKEN[target])
        if token.failure is None:
            return token
        tokens.append(token)
    failure = "; ".join(f"{one.failure}" for one in tokens)
    return Token(failure=failure, is_unsuited=all(one.is_unsuited for one in tokens))


async def _ask_for_a_token(model: Model, target: str, question: Mapping[str, object]) -> Token:
    name = model.use_model_name or model.id
    body = json.dumps({"model": name, "max_tokens": 1, "temperature": 0, **question})
    origin = origin_of(model)
    try:
        async with _exchange("POST", origin, target, body, model.control_headers) as response:
            if not _is_expected(response.status, ()):
                failure = f"{target} answered {_status(response)}"
                return Token(failure=failure, is_unsuited=response.status in UNSUITED)
            return _token_in(await _whole(response), target)
    except UpstreamError as error:
        return Token(failure=f"{target} failed: {error}")


def _token_in(text: bytes, target: str) -> Token:
    """Return what stands in a completion; thoughts that are told apart count as well."""
    try:
        choice = json.loads(text)["choices"][0]
        said = choice.get("message", choice)
        parts = [said.get(name) for name in ("reasoning_content", "reasoning", "content", "text")]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Token(failure=f"{target} answered without a choice: {_line(text)}")
    return Token("".join(part for part in parts if isinstance(part, str)), target)


async def _beginning(response: Response) -> str:
    """Return how a body begins, as one line that a terminal can show; it may never come."""
    text = b""
    with trio.move_on_after(LONGEST_WAIT):
        text = await response.read()
    return _line(text)


def _line(text: bytes) -> str:
    """Return how a text begins, as one line that a terminal can show."""
    beginning = text[: 4 * MOST_SAID].decode(errors="replace")
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in beginning).split())
    return line if len(line) <= MOST_SAID else f"{line[:MOST_SAID]}..."


async def hear_progress(model: Model, hear: Callable[[float], None]) -> None:
    """Hear from llama.cpp's router how much of a load is done; of other servers there is nothing.

    Source: ``GET /models/sse`` of llama.cpp's ``tools/server``.

    Raises:
        UpstreamError: the stream broke off.
    """
    if model.sleep != "llama.cpp-router":
        return
    name, rest = model.use_model_name or model.id, b""
    origin, headers = origin_of(model), model.control_headers
    async with _exchange("GET", origin, "/models/sse", "", headers) as response:
        while response.status == OK and (piece := await response.read()):
            *lines, rest = (rest + piece).split(b"\n")
            rest = rest[-LONGEST_ANSWER:]
            for line in lines:
                if (share := _share_told(line, name)) is not None:
                    hear(share)


def _share_told(line: bytes, name: str) -> float | None:
    """Return what a line of the stream says of a model's load: the share that is done."""
    try:
        event = json.loads(line.removeprefix(b"data:"))
        told = event["data"]["progress"] if event["model"] == name else {}
        stages = told.get("stages") or [FIRST_STAGE]  # older ones name the present stage only
        stage, value = stages.index(told.get("current") or told.get("stage")), float(told["value"])
    # It is no JSON or another event, as of a download; or it is of a stage without a share.
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    first = 1 - OF_A_LATER_STAGE * (len(stages) - 1)
    share = value * first if stage == 0 else first + OF_A_LATER_STAGE * (stage - 1 + value)
    return share if 0 <= share <= 1 else None


@asynccontextmanager
async def _exchange(
    method: str,
    origin: Origin,
    target: str,
    body: str = "",
    more: Mapping[str, str] = NONE,
) -> AsyncIterator[Response]:
    # Not "connection: close": the side that closes keeps the port for a minute (TIME-WAIT).
    headers: list[Header] = [(b"host", origin.authority.encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in more.items()]
    if body and not any(name == b"content-type" for name, _ in headers):
        headers.append((b"content-type", b"application/json"))
    path = quote(target, safe="/?&=%:;,+@!$'()*~[]#").encode()
    request = Request(method=method.encode(), target=path, headers=headers, body=body.encode())
    with await Upstream(origin, most_kept=0).exchange(request) as response:
        yield response


CONTACT = Contact(
    probe=ask_if_ready,
    call=make_call,
    one_token=ask_for_one_token,
    ask=read_answer,
    progress=hear_progress,
)
