"""Token counts in a model server's answer."""

from __future__ import annotations

import json
import time

import pytest

from proxy.forwarding.tokens import Tokens, tokens_of


@pytest.mark.parametrize(
    ("said", "tokens"),
    [
        ({"usage": {"prompt_tokens": 5, "completion_tokens": 7}}, Tokens(5, 7)),
        ({"usage": {"input_tokens": 5, "output_tokens": 7}}, Tokens(5, 7)),
        (
            {"usage": {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 3}}},
            Tokens(5, None, 3),
        ),
        ({"usage": {"input_tokens": 1, "cache_read_input_tokens": 9}}, Tokens(1, None, 9)),
        (
            {"timings": {"prompt_n": 1, "predicted_n": 2}, "usage": {"prompt_tokens": 9}},
            Tokens(1, 2),
        ),
        ([{"content": "x"}, {"timings": {"predicted_n": 4}}], Tokens(None, 4)),
        ({"usage": None}, Tokens()),
        ({"usage": {"prompt_tokens": -1, "completion_tokens": True}}, Tokens()),
        ({"choices": [{"text": '{"usage": {"prompt_tokens": 99}}'}]}, Tokens()),
    ],
    ids=repr,
)
def test_each_apis_counts_are_read(said: object, tokens: Tokens) -> None:
    """llama.cpp's timings take precedence; counts in a model's text are ignored."""
    assert tokens_of(json.dumps(said).encode()) == tokens


def test_counts_of_a_stream_are_put_together() -> None:
    """Anthropic reports input tokens at the start and output tokens at the end."""
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 3, "output_tokens": 1}}}
    end = {"type": "message_delta", "usage": {"output_tokens": 8}}
    text = "".join(f"event: x\ndata: {json.dumps(one)}\n\n" for one in (start, end))
    assert tokens_of(text.encode()) == Tokens(3, 8)


def test_what_was_cut_off_is_not_counted() -> None:
    """A truncated answer is not read."""
    assert tokens_of(b'{"usage": {"prompt_tokens": 5') == Tokens()


@pytest.mark.parametrize("unit", [b'"usage":{', b'"timings": {"a":', b'"usage":{},'])
def test_names_without_end_cost_little(unit: bytes) -> None:
    """A model server's answer may repeat what a client has sent."""
    began = time.thread_time()
    tokens_of(unit * (500_000 // len(unit)))
    assert time.thread_time() - began < 0.1
