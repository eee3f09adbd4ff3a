"""The way to a model server on a node: through the entrance that its launcher keeps there.

Owns the greeting, in which both sides prove that they have the key of this life. What is sent
afterwards is not read and not encrypted.
"""

from __future__ import annotations

import errno
import hmac
import os
import secrets
from contextlib import suppress

import trio

from configschema import Entrance
from supervisor.clusters.node.entrance import (
    NONCE,
    OPEN,
    PROOF,
    REFUSED,
    TRAFFIC,
    proof_of,
)

TRIES, PAUSE = 3, 0.02  # seconds between two tries
NO_KEY = "the program that listens there does not have the key of the model's step"


class Stranger(OSError):
    """Something else than the step's launcher listens at its entrance, or the launcher is gone."""

    def __init__(self) -> None:
        super().__init__(errno.ECONNABORTED, NO_KEY)


class Crowded(Stranger):
    """The entrance closed the connection: too many connect at once, or it has another key."""


async def enter(entrance: Entrance, kind: bytes = TRAFFIC) -> trio.SocketStream:
    """Open a connection to a model server, or to its launcher.

    Args:
        entrance: the entrance of its step.
        kind: the purpose of the connection.

    Raises:
        OSError: nothing listens there, it is a stranger, or the server does not listen yet.
    """
    for _ in range(TRIES - 1):
        with suppress(Crowded):
            return await _enter(entrance, kind)
        await trio.sleep(PAUSE)
    return await _enter(entrance, kind)


async def _enter(entrance: Entrance, kind: bytes) -> trio.SocketStream:
    stream = await trio.open_tcp_stream(entrance.host, entrance.port)
    try:
        await _greet(stream, bytes.fromhex(entrance.key), kind)
    except (trio.BrokenResourceError, EOFError) as error:
        await trio.aclose_forcefully(stream)
        raise Crowded from error
    except BaseException:  # cancelled, too
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def _greet(stream: trio.SocketStream, key: bytes, kind: bytes) -> None:
    theirs, ours = await _exactly(stream, NONCE), secrets.token_bytes(NONCE)
    await stream.send_all(kind + ours + proof_of(key, b"visitor" + kind, theirs, ours))
    said = await _exactly(stream, len(OPEN) + PROOF)
    word, shown = said[: len(OPEN)], said[len(OPEN) :]
    if not hmac.compare_digest(shown, proof_of(key, b"launcher" + word, theirs, ours)):
        raise Stranger
    if word == REFUSED:
        raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))


async def _exactly(stream: trio.SocketStream, length: int) -> bytes:
    """Read exactly this many bytes: what follows belongs to the caller."""
    data = b""
    while len(data) < length:
        piece = await stream.receive_some(length - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data
