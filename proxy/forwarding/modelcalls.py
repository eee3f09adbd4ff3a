"""The daemon's own requests to a model server: readiness, progress of a load, sleep and wake.

Owns the form of these requests and which answers mean success. The supervisor decides how often and
for how long they are made.
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
LONGEST_ANSWER = 1024 * 1024  # bytes of an answer that are read
QUESTION = "What is 2 + 2? Answer with one digit."
ONE_TOKEN: dict[str, dict[str, object]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": QUESTION}]},
    "/v1/completions": {"prompt": QUESTION},
}
UNSUITED = (400, 401, 403, 404, 405, 422, 501)  # the model cannot answer this request at all
NONE: Mapping[str, str] = {}
LOCKED = ": the model server requires a key: set it in controlHeaders"
FIRST_STAGE = "text_model"
OF_A_LATER_STAGE = 0.1  # of a load, as on llama.cpp's own page; the text model has the rest
LONGEST_WAIT = 1  # seconds for the body of an answer whose status says enough


def origin_of(model: Model) -> Origin:
    """Return where a model's server listens now."""
    return Origin.of(model.proxy, model.entrance)


async def ask_if_ready(model: Model) -> str | None:
    """Return None if the model server answers its check with 200, otherwise why not."""
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
    """Make one step into sleep or out of it. Return None for success, otherwise the failure."""
    _, failure = await _answer_to(step)
    return failure


async def read_answer(step: Call) -> Answer:
    """Make one request, and return the JSON of its answer or the failure."""
    text, failure = await _answer_to(step)
    try:
        return Answer(json.loads(text) if failure is None else None, failure)
    except (ValueError, RecursionError):  # not JSON, or nested too deeply
        return Answer(failure=f"answered {_line(text)}, which is not JSON")


async def _answer_to(step: Call) -> tuple[bytes, str | None]:
    """Return the body of an answer, and why it is a failure if it is."""
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
    """Return a status in words, with the text of the answer and a hint if a key is missing."""
    text = f"{response.status} ({said})" if said else f"{response.status}"
    return text + (LOCKED if response.status in (401, 403) else "")


def _judge(text: bytes, step: Call) -> str | None:
    """Return why an answer does not meet the conditions of its step, or None."""
    if step.holds and not _is_true(step.holds, text):
        return f"answered {_line(text)}, for which this is not true: {step.holds}"
    if step.idle_metric and (running := _sum_of(step.idle_metric, text)):
        return f"reported requests in flight: {running:g}"
    return None


def _sum_of(metric: str, text: bytes) -> float | None:
    """Return the sum of a metric's samples in Prometheus' text, or None if it is unknown."""
    from prometheus_client.parser import text_string_to_metric_families  # takes 20 ms

    start = re.compile(re.escape(metric) + r"[\s{]")
    found = [line for line in text.decode(errors="replace").split("\n") if start.match(line)]
    try:  # only these lines, since the parser may refuse others
        families = [*text_string_to_metric_families("\n".join(found) + "\n")]
    except (ValueError, LookupError):
        return None
    total = sum(one.value for family in families for one in family.samples)
    return None if isnan(total) else total


async def _whole(response: Response) -> bytes:
    """Read a body to its end, which means that the step is done. Return its beginning."""
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
    # The text is not JSON, or nested too deeply, or a function got an unsuitable argument.
    except (ValueError, TypeError, ArithmeticError, RecursionError):
        return False


async def ask_for_one_token(model: Model, route: str = "") -> Token:
    """Ask a model for one token, always with the same question.

    A model of another kind than chat or text cannot answer. This is a failure.

    Args:
        model: the model to ask.
        route: the route to ask at; by default the first route that answers.
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
    """Return the text of a completion, including separate reasoning."""
    try:
        choice = json.loads(text)["choices"][0]
        said = choice.get("message", choice)
        parts = [said.get(name) for name in ("reasoning_content", "reasoning", "content", "text")]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Token(failure=f"{target} answered without a choice: {_line(text)}")
    return Token("".join(part for part in parts if isinstance(part, str)), target)


async def _beginning(response: Response) -> str:
    """Return the beginning of a body, which may never come, as one line for a terminal."""
    text = b""
    with trio.move_on_after(LONGEST_WAIT):
        text = await response.read()
    return _line(text)


def _line(text: bytes) -> str:
    """Return the beginning of a text, as one line that a terminal can show."""
    beginning = text[: 4 * MOST_SAID].decode(errors="replace")
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in beginning).split())
    return line if len(line) <= MOST_SAID else f"{line[:MOST_SAID]}..."


async def hear_progress(model: Model, hear: Callable[[float], None]) -> None:
    """Report how much of a load is done, as llama.cpp's router tells. Other servers do not tell.

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
    """Return the share of a model's load that is done, as a line of the stream tells it."""
    try:
        event = json.loads(line.removeprefix(b"data:"))
        told = event["data"]["progress"] if event["model"] == name else {}
        stages = told.get("stages") or [FIRST_STAGE]  # older servers name only the current stage
        stage, value = stages.index(told.get("current") or told.get("stage")), float(told["value"])
    # Not JSON, or another event, such as for a download, or a stage without a share.
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
    # Not "connection: close": the closing side would keep the port for a minute (TIME-WAIT).
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
