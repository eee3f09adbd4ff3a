"""What a request asks for: its model, whether it wants a stream, and the body to pass on.

Owns reading a request's body, only as far as needed. JSON is held and parsed. A form is read up to
its model. Any other body is passed on as it arrives.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote_plus

import attrs
import msgspec
import trio

from proxy.forwarding.filters import Edit, edited, rename
from proxy.forwarding.jsontext import NotJson, Steps, T, look_into, root_of
from proxy.http.bodies import Held, Holding, Incoming, Limits, Upload, hold
from proxy.http.errors import BadRequest, needs_restart
from proxy.http.exchange import Exchange
from proxy.http.heads import FRAMING
from proxy.naming.routes import NamedIn, Route

if TYPE_CHECKING:  # it needs werkzeug, whose import takes a tenth of the start
    from proxy.forwarding.forms import FormUpload

    BoundaryOf = Callable[[bytes], bytes]
    ReadForm = Callable[[Incoming, bytes, float], Awaitable[FormUpload]]

MOST_FIELDS = 1000
LONGEST_FORM = 1024 * 1024  # bytes of a URL-encoded form that are searched for the model
AT_ONCE = 4 * 1024 * 1024  # bytes that are parsed at once, which takes some milliseconds
LONGEST_NAME = 4096  # bytes of a model's name, with its escapes
BOM = b"\xef\xbb\xbf"
IDENTITY = (b"", b"identity")


@attrs.define(kw_only=True)
class Question:
    """A request, as far as it must be known to forward it.

    Attributes:
        model: the model's name in the request.
        body: the body to pass on.
        stream: whether the client wants the answer as a stream of events.
        is_json: whether the body is JSON.
        form: the body, if it is a form whose beginning was read.
    """

    model: str
    body: Held | Upload
    stream: bool = False
    is_json: bool = False
    form: FormUpload | None = None

    async def rewrite(self, edits: list[Edit], model: str) -> None:
        """Change the body, and put in the name that the model's server uses.

        Raises:
            BadRequest: the body looked like JSON, but is not.
        """
        if self.form is not None:
            if model != self.model:
                self.form.rename(model)
        elif self.is_json and isinstance(self.body, Held):
            wanted = [*edits, *([rename(model)] if model != self.model else [])]
            try:
                self.body = await gently(edited(self.body, wanted))
            except NotJson as error:
                raise BadRequest(f"the body is not JSON: {error}") from None


async def gently(steps: Steps[T]) -> T:
    """Do work in steps, and let other tasks run between them."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            value: T = end.value
            return value
        await trio.lowlevel.checkpoint()


async def read_question(
    route: Route, exchange: Exchange, incoming: Incoming, limits: Limits, holding: Holding
) -> Question:
    """Read a request as far as needed.

    Args:
        route: how the request is forwarded.
        exchange: the request's head.
        incoming: the request's body.
        limits: how long the body may be.
        holding: counts the bytes of the body that are held.

    Raises:
        BadRequest: the request names no model, or its body is too long.
    """
    if route.named_in is NamedIn.PATH:
        return Question(model=route.model, body=await _pass_on(exchange, incoming, limits))
    if route.named_in is NamedIn.QUERY:
        asked = _first(exchange.query)
        question = Question(
            model=asked.get("model", "") or route.model,
            body=await _pass_on(exchange, incoming, limits),
            stream=asked.get("stream") == "true",
        )
    else:
        question = await _read_body(exchange, incoming, limits, holding)
    if not question.model:
        if question.form is not None:
            question.form.close()
        raise no_model("set 'model' to the name of a model")
    return question


def no_model(remedy: str) -> BadRequest:
    """Return the error for a request that names no model, with llama-swap's status 404."""
    return BadRequest(f"no model id could be identified: {remedy}", status=404, param="model")


async def _pass_on(exchange: Exchange, incoming: Incoming, limits: Limits) -> bytes | Upload:
    """Return the body to pass on as it arrives. If there is none, do not wait for one."""
    if not FRAMING.isdisjoint(exchange.fields):
        return incoming.as_upload(limits.upload)
    # A websocket's request has no end after its head: the websocket's bytes follow later.
    return b"" if exchange.is_raw else await incoming.read()


async def _read_body(
    exchange: Exchange, incoming: Incoming, limits: Limits, holding: Holding
) -> Question:
    kind = exchange.fields.get(b"content-type", b"")
    lowered = kind.lower()
    if b"multipart/form-data" in lowered:
        form = await _read_form(kind, incoming, limits)
        model = form.model or _first(exchange.query).get("model", "")
        return Question(model=model, body=form, form=form)
    if b"content-encoding" in exchange.fields:
        _refuse_coded(exchange.fields[b"content-encoding"])
    body = await hold(incoming, limits.held, holding)
    # curl -d labels every body as a form.
    if b"json" in lowered or _begins_like_json(body):
        asked = _asked(body) or await _asked_of_large(body)
        model = asked.model if isinstance(asked.model, str) else _as_text(asked.model)
        if model or b"json" in lowered:
            return Question(model=model, body=body, stream=asked.stream is True, is_json=True)
    model = _field(body[:LONGEST_FORM], b"model")
    return Question(model=model or _first(exchange.query).get("model", ""), body=body)


async def _read_form(kind: bytes, incoming: Incoming, limits: Limits) -> FormUpload:
    """Read a form up to its model. For the first form, a thread loads the module that reads forms.

    Raises:
        BadRequest: it is not a form, is too long, or this process can no longer read forms.
    """
    try:
        if not _reader_of_forms.cache_info().currsize:
            with suppress(RuntimeError):  # without a thread, the import below blocks every task
                await trio.to_thread.run_sync(_reader_of_forms)
        boundary_of, read_form = _reader_of_forms()
    except ImportError as error:
        raise needs_restart("forms", error) from error
    return await read_form(incoming, boundary_of(kind), limits.upload)


@cache
def _reader_of_forms() -> tuple[BoundaryOf, ReadForm]:
    from proxy.forwarding.forms import boundary_of, read_form

    return boundary_of, read_form


def _refuse_coded(said: bytes) -> None:
    """Refuse an encoded body, which would have to be decoded first (RFC 9110, 15.5.16)."""
    coding = said.strip().lower()
    if coding not in IDENTITY:
        text = f"the body has the encoding {coding.decode('latin-1')}: send it without encoding"
        raise BadRequest(text, status=415, headers={"Accept-Encoding": "identity"})


def _begins_like_json(body: Held) -> bool:
    return body[:LONGEST_NAME].lstrip().startswith((b"{", BOM))


def _as_text(model: object) -> str:
    """Return a name that is not text. As in llama-swap, a number is a name."""
    return str(model) if type(model) in (int, float) else ""


def _first(encoded: bytes) -> dict[str, str]:
    """Return the first value of each field of a query, or of a URL-encoded form."""
    try:
        return dict(reversed(parse_qsl(encoded.decode("latin-1"), max_num_fields=MOST_FIELDS)))
    except ValueError:  # reading millions of fields would block every task
        return {}


def _field(encoded: Held, name: bytes) -> str:
    """Return a field of a URL-encoded form. Other fields are not decoded."""
    _, found, rest = (b"&" + encoded).partition(b"&" + name + b"=")
    value = rest[:LONGEST_NAME].partition(b"&")[0] if found else b""
    return unquote_plus(value.decode("latin-1"))


class Asked(msgspec.Struct):
    """The needed members of a body. All others are skipped, not built."""

    model: str | int | float | None = None
    stream: bool | None = None


class _Loosely(msgspec.Struct):
    """The same members, with values of any kind."""

    model: msgspec.Raw = msgspec.Raw(b"null")
    stream: msgspec.Raw = msgspec.Raw(b"null")


_STRICT, _LOOSE = msgspec.json.Decoder(Asked), msgspec.json.Decoder(_Loosely)
_NAME = msgspec.json.Decoder(str | int | float)
NAMES_BEGIN = b'"-0123456789'


def _asked(body: Held) -> Asked | None:
    """Return what a JSON body asks for. None if the body must be read in steps.

    Raises:
        BadRequest: the body is not a JSON object.
    """
    if len(body) > AT_ONCE:
        return None
    text = body[len(BOM) :] if body.startswith(BOM) else body
    try:
        return _STRICT.decode(text)
    except msgspec.ValidationError:
        return _of_other_kinds(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Half an emoji, NaN, deep nesting: the model server decides whether that is JSON.
        return None


def _of_other_kinds(text: Held) -> Asked:
    """Return what a body asks for if its `model` or `stream` has an unexpected type."""
    try:
        found = _LOOSE.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise no_model("the body is not a JSON object") from None
    return Asked(_name_in(bytes(found.model)), bytes(found.stream) == b"true")


async def _asked_of_large(body: Held) -> Asked:
    try:
        start = await gently(root_of(body))
        found = await gently(look_into(body, start, ("model", "stream").__contains__))
    except NotJson as error:
        raise no_model(f"the body is not JSON: {error}") from None
    # In order, so that the last of several equal keys counts, as with most JSON parsers.
    values = {
        json.loads(body[one.start : one.value].rstrip().removesuffix(b":")): bytes(
            body[one.value : min(one.end, one.value + LONGEST_NAME)]
        )
        for one in found.found
    }
    return Asked(_name_in(values.get("model", b"")), values.get("stream") == b"true")


def _name_in(value: bytes) -> str | int | float | None:
    """Return a JSON value that may be a model's name. Values of other types are not built.

    Raises:
        BadRequest: the name cannot be decoded.
    """
    if not value or value[0] not in NAMES_BEGIN:
        return None
    try:
        name: str | int | float = _NAME.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise no_model("'model' in the body cannot be read as a name") from None
    return name
