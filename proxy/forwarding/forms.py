"""A multipart form on its way to a model server: read up to its model, passed on as it is.

Owns finding the field ``model`` and replacing its value. All other bytes stay as they are. The
bytes before the model are kept in memory, or in a file if there are many.
"""

from __future__ import annotations

import tempfile
from typing import IO, cast

import attrs
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Field, MultipartDecoder, NeedData

from proxy.http.bodies import Incoming, too_long
from proxy.http.errors import BadRequest

IN_MEMORY = 1024 * 1024  # bytes of a form that are kept in memory
PIECE = 65536
MOST_PARTS = 1000
LONGEST_NAME = 4096  # bytes
LONGEST_HEAD = 16 * 1024  # bytes of a part, or before the first
LONGEST_KIND = 1024  # bytes of the form's Content-Type
LONGEST_BOUNDARY = 70  # bytes (RFC 2046, 5.1.1)


def boundary_of(content_type: bytes) -> bytes:
    """Return the boundary between a form's parts.

    Raises:
        BadRequest: the boundary is missing or too long.
    """
    if len(content_type) > LONGEST_KIND:
        raise BadRequest(f"the form's Content-Type has more than {LONGEST_KIND} bytes")
    _, options = parse_options_header(content_type.decode("latin-1"))
    if not (boundary := options.get("boundary")):
        raise BadRequest("the form's Content-Type has no boundary")
    if len(boundary) > LONGEST_BOUNDARY:
        raise BadRequest(f"the form's boundary has more than {LONGEST_BOUNDARY} characters")
    return boundary.encode("latin-1", "replace")


def _check(size: int, limit: float) -> None:
    if size > limit:
        raise too_long(limit, "maxUpload")


@attrs.define(eq=False)
class FormUpload:
    """A form whose beginning was read.

    Attributes:
        model: the value of the field ``model``; nothing if the form has no such field.
    """

    model: str
    _incoming: Incoming
    _read: IO[bytes]
    _limit: float
    _start: int
    _end: int
    _size: int
    _place: int = attrs.field(default=0, init=False)
    _name: bytes | None = attrs.field(default=None, init=False)

    @property
    def length(self) -> int | None:
        """The size in bytes, if the client has stated it."""
        if self._incoming.length is None:
            return None
        added = len(self._name) - (self._end - self._start) if self._name is not None else 0
        return self._incoming.length + added

    def rename(self, model: str) -> None:
        """Replace the value of the field ``model``."""
        self._name = model.encode()

    def close(self) -> None:
        """Drop the bytes that were kept."""
        self._read.close()

    async def read(self) -> bytes:
        """Return the next part; nothing at the end."""
        if self._name is not None and self._place == self._start:
            self._place = self._end
            return self._name
        if kept := self._kept():
            return kept
        piece = await self._incoming.flow()
        self._size += len(piece)
        _check(self._size, self._limit)
        return piece

    def _kept(self) -> bytes:
        """Return a piece of the bytes that were kept, up to a replaced name."""
        most = PIECE
        if self._name is not None and self._place < self._start:
            most = min(PIECE, self._start - self._place)
        self._read.seek(self._place)
        kept = self._read.read(most)
        self._place += len(kept)
        return kept


async def read_form(incoming: Incoming, boundary: bytes, limit: float) -> FormUpload:
    """Read a form until its model is found, or to its end.

    Raises:
        BadRequest: the body is not a form, or is too long.
    """
    _check(incoming.length or 0, limit)
    kept = cast("IO[bytes]", tempfile.SpooledTemporaryFile(IN_MEMORY))  # noqa: SIM115 -- kept
    search = _Search(MultipartDecoder(boundary, max_parts=MOST_PARTS))
    size = 0
    try:
        while not search.found and (piece := await incoming.read()):
            kept.write(piece)
            size += len(piece)
            _check(size, limit)
            search.feed(piece)
    except BaseException:  # after any error, no other code closes the file
        kept.close()
        raise
    # If a delimiter comes in two pieces, the decoder leaves its first byte in the value.
    value = bytes(search.value).removesuffix(b"\r") if search.found else b""
    name, end = value.decode("utf-8", "replace"), search.start + len(value)
    return FormUpload(name, incoming, kept, limit, search.start, end, size)


@attrs.define(eq=False)
class _Search:
    """Looks for the field ``model`` in the pieces of a form."""

    _decoder: MultipartDecoder
    found: bool = False
    start: int = 0
    value: bytearray = attrs.field(factory=bytearray)
    _fed: int = 0
    _inside: bool = False

    def feed(self, piece: bytes) -> None:
        try:
            for start in range(0, len(piece), LONGEST_HEAD):  # no head of a part is longer
                self._feed(piece[start : start + LONGEST_HEAD])
        except ValueError as error:
            raise BadRequest(f"the form cannot be read: {error}") from None
        except RequestEntityTooLarge:
            raise BadRequest(f"the form has more than {MOST_PARTS} parts", status=413) from None

    def _feed(self, piece: bytes) -> None:
        if self.found:
            return
        self._fed += len(piece)
        self._decoder.receive_data(piece)
        while not self.found and not self._step():
            pass
        if not self.found and len(self._decoder.buffer) > LONGEST_HEAD:
            raise BadRequest(f"the form has a part whose head has more than {LONGEST_HEAD} bytes")

    def _step(self) -> bool:
        """Take one event; return whether more data is needed."""
        match self._decoder.next_event():
            case Field(name="model"):
                self._inside = True
                rest = self._decoder.buffer  # the line break before the value is still in it
                self.start = self._fed - len(rest) + (2 if rest.startswith(b"\r\n") else 1)
            case Data(data=data, more_data=more) if self._inside:
                self.value += data
                self.found = not more
                if len(self.value) > LONGEST_NAME:
                    raise BadRequest(f"the form's model has more than {LONGEST_NAME} bytes")
            case NeedData() | Epilogue():
                return True
            case _:
                pass
        return False
