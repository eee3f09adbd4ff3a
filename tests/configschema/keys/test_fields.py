"""What all sections of the file have in common."""

from __future__ import annotations

import attrs
import pytest

from configschema import Model, parse
from configschema.keys.fields import Secret
from configschema.keys.sections import Peer, Timeouts

FILE = "models:\n  m: {cmd: 'sh ${PORT}', ttl: 5, timeouts: {connect: 3}}\n"


def _model(text: str = FILE) -> Model:
    return parse(text, environ={}).config.models["m"]


def test_sections_that_say_the_same_are_equal() -> None:
    """It does not matter how the sections were made; derived, uncompared fields do not count."""
    assert _model() == _model()
    assert attrs.evolve(_model(), on_port=None) == _model()
    assert Timeouts() == Timeouts()


@pytest.mark.parametrize("other", [FILE.replace("5", "6"), FILE.replace("3", "4")])
def test_sections_that_say_something_else_are_not(other: str) -> None:
    """A different value in a nested section makes the outer sections different, too."""
    assert _model() != _model(other)
    assert Timeouts() != Peer()


def test_a_section_shows_what_it_says_but_no_secret() -> None:
    """For example, a traceback may show a section."""
    shown = repr(attrs.evolve(Peer(), proxy="http://there", api_key=Secret("sesame")))
    assert shown.startswith("Peer(proxy='http://there', models=(), filters=Filters(")
    assert "sesame" not in shown
