"""Comments that keep a narrated stream alive while its model thinks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from proxy.forwarding.answer import BETWEEN_COMMENTS, COMMENT, Answer
from proxy.forwarding.inflight import Call
from proxy.http.headers import Header
from proxy.http.parsing import UpstreamError
from proxy.naming.dialects import CHAT
from tests.peers.client import ask
from tests.proxy.daemon import daemon, stub

EVENTS: list[Header] = [(b"content-type", b"text/event-stream")]


@attrs.define(eq=False)
class FakeExchange:
    """Records what is written and when it was sent; a write takes `slow` seconds."""

    slow: float = 0
    written: list[tuple[float, bytes]] = attrs.field(factory=list)
    fields: dict[bytes, bytes] = attrs.field(factory=dict)

    def begin(self, status: int, headers: Sequence[Header]) -> None:
        pass

    async def flush(self) -> None:
        await trio.lowlevel.checkpoint()

    async def write(self, body: bytes, *, last: bool = False) -> None:
        await trio.sleep(self.slow)
        self.written.append((trio.current_time(), body))


@attrs.define(eq=False)
class FakeResponse:
    """Arrives in pieces, each after some seconds."""

    pieces: list[tuple[float, bytes]]
    status: int = 200
    headers: list[Header] = attrs.field(factory=lambda: list(EVENTS))

    @property
    def done(self) -> bool:
        return not self.pieces

    async def read(self) -> bytes:
        if not self.pieces:
            await trio.lowlevel.checkpoint()
            return b""
        wait, piece = self.pieces.pop(0)
        await trio.sleep(wait)
        return piece


async def answered(exchange: FakeExchange, ask: Callable[[Answer], Awaitable[None]]) -> Answer:
    """Begin a stream, as a narration does, and let the model's answer follow."""
    fake: Any = exchange
    answer = Answer(fake, Call("1", "POST", "/v1/chat/completions", [], ""), CHAT)
    await answer.begin_events()
    await answer.go_on_with(lambda: ask(answer))
    return answer


def relaying(*pieces: tuple[float, bytes], head: float = 0, **more: Any) -> Any:
    """Return a function that answers in these pieces, `head` seconds after the request."""

    async def ask(answer: Answer) -> None:
        await trio.sleep(head)
        response: Any = FakeResponse(list(pieces), **more)
        await answer.relay(response, None)  # type: ignore[arg-type]  # only tunnels read it

    return ask


async def test_a_comment_goes_out_each_while_until_the_first_byte(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Comments go out before and after the answer's head, but not after the model's first byte."""
    began, exchange = trio.current_time(), FakeExchange()
    first, second = (b"data: 1\n\n", b"data: 2\n\n")
    await answered(exchange, relaying((40, first), (100, second), head=40))
    comments = [BETWEEN_COMMENTS * n for n in range(1, 6)]
    expected = [*((at, COMMENT) for at in comments), (80, first), (180, second)]
    assert [(round(at - began, 6), body) for at, body in exchange.written] == expected


async def test_an_answer_that_comes_at_once_has_no_comment(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A pause after the model's first byte causes no comment, however long it is."""
    exchange = FakeExchange()
    answer = await answered(exchange, relaying((0, b"data: 1\n\n"), (60, b"data: 2\n\n")))
    assert b"".join(body for _, body in exchange.written) == b"data: 1\n\ndata: 2\n\n"
    assert answer.complete


async def test_a_comment_is_sent_whole_before_the_first_byte(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Even if the client reads slowly and the model answers meanwhile, the comment stays whole."""
    exchange = FakeExchange(slow=10)
    await answered(exchange, relaying((20, b"data: 1\n\n")))
    assert [body for _, body in exchange.written] == [COMMENT, b"data: 1\n\n"]


async def test_a_failure_is_told_as_it_is(autojump_clock: trio.testing.MockClock) -> None:
    """The error stays the same, and no comment follows it."""
    exchange = FakeExchange(slow=1)

    async def fail(_: Answer) -> None:
        await trio.sleep(15.5)  # a comment is being sent
        raise UpstreamError("it broke off")

    with pytest.raises(UpstreamError, match="it broke off") as caught:
        await answered(exchange, fail)
    await trio.sleep(60)
    assert caught.type is UpstreamError
    assert [body for _, body in exchange.written] == [COMMENT]


async def test_a_refusal_of_the_model_server_follows_the_comments(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The refusal is an event, and it is the last event."""
    exchange = FakeExchange()
    await answered(exchange, relaying((20, b"too long"), status=400))
    comment, refusal = (body for _, body in exchange.written)
    assert comment == COMMENT
    assert b"the model server answered 400: too long" in refusal


async def test_a_client_that_leaves_ends_the_comments(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The comments end at once, even during a write."""
    for slow in (0, 10):
        began, exchange = trio.current_time(), FakeExchange(slow=slow)
        with trio.move_on_after(20) as left:
            await answered(exchange, relaying((1000, b"data: 1\n\n")))
        assert left.cancelled_caught
        assert trio.current_time() - began == pytest.approx(20)
        assert len(exchange.written) == (0 if slow else 1)


async def test_a_narrated_stream_is_not_silent_while_its_prompt_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Comments follow the narration; a stream without narration passes byte for byte."""
    monkeypatch.setattr("proxy.forwarding.answer.BETWEEN_COMMENTS", 0.1)
    body = {"model": "a", "stream": True, "chunks": 2, "delay": 0.55, "pause": 0.3}
    async with daemon({"a": stub("--ready-after", "0.2")}, sendLoadingState=True) as running:
        reply = await ask(running.port, "POST", "/v1/chat/completions", body)
        narrated, _, rest = reply.body.partition(b"Done! (")
        _, *blocks = rest.removesuffix(b"\n\n").split(b"\n\n")
        *comments, first, second = blocks
        assert COMMENT.strip() not in narrated
        assert 3 <= len(comments) <= 5
        assert set(comments) == {COMMENT.strip()}
        assert (first, second) == (b'data: {"n": 0}', b'data: {"n": 1}')
        again = await ask(running.port, "POST", "/v1/chat/completions", body)
        assert again.body == b'data: {"n": 0}\n\ndata: {"n": 1}\n\n'
