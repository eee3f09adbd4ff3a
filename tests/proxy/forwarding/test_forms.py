"""Multipart forms on their way to a model server."""

from __future__ import annotations

from contextlib import closing
from itertools import pairwise
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from proxy.forwarding.forms import FormUpload, boundary_of, read_form
from proxy.http.bodies import Incoming
from proxy.http.errors import BadRequest
from tests.proxy.arriving import Arriving

BOUNDARY = b"xX--boundary"


def form(*parts: tuple[str, bytes]) -> bytes:
    framed = (b"--%b\r\n%b\r\n\r\n%b\r\n" % (BOUNDARY, h.encode(), data) for h, data in parts)
    return b"".join(framed) + b"--%b--\r\n" % BOUNDARY


def field(name: str) -> str:
    return f'Content-Disposition: form-data; name="{name}"'


FILE = field("file") + '; filename="a.wav"\r\nContent-Type: audio/wav'
SOUND = bytes(range(256)) * 40 + b"\r\n--xX--bound\r\n"


def incoming(body: bytes, cuts: list[int] | None = None, length: bool = True) -> Incoming:
    places = [0, *sorted(cut % (len(body) + 1) for cut in cuts or []), len(body)]
    pieces = (body[a:b] for a, b in pairwise(places))
    return Incoming(Arriving.of(pieces), len(body) if length else None)


def drain(coroutine: Any) -> Any:
    """Run a coroutine that never waits."""

    async def run() -> Any:
        return await coroutine

    return trio.run(run)


def read_all(upload: FormUpload) -> bytes:
    body = b""
    while piece := drain(upload.read()):
        body += piece
    return body


ORDERS = [
    [(field("model"), b"whisper"), (FILE, SOUND)],
    [(FILE, SOUND), (field("model"), b"whisper")],
    [(field("prompt"), b"m"), (FILE, SOUND), (field("model"), b"whisper"), (field("x"), b"")],
]


@given(st.sampled_from(ORDERS), st.lists(st.integers(0, 20_000), max_size=20), st.booleans())
def test_a_form_goes_on_byte_for_byte(
    parts: list[tuple[str, bytes]], cuts: list[int], length: bool
) -> None:
    """The position of the model's field and the split of the body do not matter."""
    body = form(*parts)
    with closing(drain(read_form(incoming(body, cuts, length), BOUNDARY, 1e9))) as upload:
        assert upload.model == "whisper"
        assert upload.length == (len(body) if length else None)
        assert read_all(upload) == body


@given(st.sampled_from(ORDERS), st.lists(st.integers(0, 20_000), max_size=20))
def test_only_the_models_name_is_replaced(parts: list[tuple[str, bytes]], cuts: list[int]) -> None:
    """The form's length is adjusted to the new name."""
    name = "large-v3-türbo"
    renamed = [(head, name.encode() if data == b"whisper" else data) for head, data in parts]
    with closing(drain(read_form(incoming(form(*parts), cuts), BOUNDARY, 1e9))) as upload:
        upload.rename(name)
        assert read_all(upload) == form(*renamed)
        assert upload.length == len(form(*renamed))


@pytest.mark.parametrize(
    "body",
    [form((FILE, SOUND)), form((field("Model"), b"x")), b"no form at all", b""],
    ids=["no model", "another field", "no form", "nothing"],
)
def test_a_form_without_a_model_names_none(body: bytes) -> None:
    """Other faults of the form are left to the model server."""
    with closing(drain(read_form(incoming(body), BOUNDARY, 1e9))) as upload:
        assert upload.model == ""


@pytest.mark.parametrize("length", [True, False])
def test_a_form_that_is_too_long_is_refused(length: bool) -> None:
    """With a Content-Length the form is refused at once, otherwise when it exceeds the limit."""
    body = form((FILE, SOUND), (field("model"), b"whisper"))
    with pytest.raises(BadRequest, match="maxUpload") as caught:
        drain(read_form(incoming(body, [100, 500, 5000], length), BOUNDARY, 1000))
    assert caught.value.status == 413


def test_what_comes_after_the_model_is_bounded_too() -> None:
    """The limit also applies while the form is passed on."""
    body = form((field("model"), b"whisper"), (FILE, SOUND))
    arriving = incoming(body, [200, 900, 5000], length=False)
    with (
        closing(drain(read_form(arriving, BOUNDARY, 1000))) as upload,
        pytest.raises(BadRequest, match="maxUpload"),
    ):
        read_all(upload)


def test_a_delimiter_may_come_in_two_pieces() -> None:
    """The split may be at any byte of the delimiter."""
    body = form((FILE, SOUND), (field("model"), b"whisper"))
    for cut in range(len(body) - 40, len(body)):
        with closing(drain(read_form(incoming(body, [cut]), BOUNDARY, 1e9))) as upload:
            assert (upload.model, read_all(upload)) == ("whisper", body)


@pytest.mark.parametrize("body", [b"x" * 10_000_000, b"--xX--boundary\r\na: " + b"x" * 10_000_000])
def test_what_never_becomes_a_part_is_not_kept(body: bytes) -> None:
    """The limit applies before the first part and in a part's head."""
    with pytest.raises(BadRequest, match="whose head has more than"):
        drain(read_form(incoming(body, list(range(0, 10_000_000, 65536))), BOUNDARY, 1e9))


def test_a_file_that_comes_with_the_model_in_one_piece_is_no_head() -> None:
    """A large piece does not count as the head of a part."""
    body = form((field("model"), b"whisper"), (FILE, b"x" * 1_000_000))
    with closing(drain(read_form(incoming(body), BOUNDARY, 1e9))) as upload:
        assert (upload.model, read_all(upload)) == ("whisper", body)


def test_a_form_needs_its_boundary() -> None:
    """The boundary may be quoted."""
    assert boundary_of(b'multipart/form-data; boundary="a b"') == b"a b"
    with pytest.raises(BadRequest, match="boundary"):
        boundary_of(b"multipart/form-data")
