"""What is known of the memory of a model that may be awake for the first time forever."""

from __future__ import annotations

import json

import attrs

from configschema import Model, parse
from supervisor.model.known import Known
from supervisor.states.footprint import Footprint
from supervisor.states.pins import Pin

GIB = 1 << 30
SEEN = Footprint().held_awake([3 * GIB], GIB)


def model(**keys: object) -> Model:
    text = json.dumps({"models": {"a": {"cmd": "serve --port ${PORT}", **keys}}})
    return parse(text).config.models["a"]


def test_what_was_seen_of_a_kept_model_counts_at_once() -> None:
    """The model may never leave, and would otherwise have its device to itself forever."""
    known = Known(SEEN)
    assert not known.need(model()).known.is_known
    assert known.need(model(keep=True)).known.gpus == (3 * GIB,)
    known.lease = Pin(holder="ci")
    assert known.need(model()).known.gpus == (3 * GIB,)


def test_a_kept_model_of_which_nothing_was_seen_is_not_known() -> None:
    """The same is true of a kept model that has just lacked memory."""
    assert not Known().need(model(keep=True)).known.is_known
    assert not Known(attrs.evolve(SEEN, is_short=True)).need(model(keep=True)).known.is_known


def test_a_need_that_is_the_same_is_the_same_object() -> None:
    """Other code caches what follows from a need by its identity."""
    known, kept = Known(SEEN), model(keep=True)
    assert known.need(kept) is known.need(kept)


def test_a_server_of_another_machine_takes_nothing_of_this_one() -> None:
    """Nobody can measure that server, so it would otherwise have a GPU to itself forever."""
    known = Known()
    remote = json.dumps({"models": {"a": {"proxy": "http://10.9.8.7:8000"}}})
    known.begin(parse(remote).config.models["a"], Footprint())
    assert (known.footprint.gpus, known.footprint.host) == ((), 0)
