"""Ports that are kept free: no other process gets them, but a server of ours may listen there."""

from __future__ import annotations

import contextlib
import socket

import pytest

from supervisor.processes import ports
from supervisor.processes.ports import HOST, is_free, kept_free


def test_nobody_else_is_given_a_port_that_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another keeper of ports that begins its search just before it does not get it either."""
    with kept_free(2) as mine:
        tried: list[int] = []
        bound = ports._bound

        def beginning_before_mine(port: int, held: contextlib.ExitStack) -> int:
            tried.append(port)
            return bound(mine - 1 if len(tried) == 1 else port, held)

        monkeypatch.setattr(ports, "_bound", beginning_before_mine)
        with kept_free(2) as theirs:
            assert not {theirs, theirs + 1} & {mine, mine + 1}


@pytest.mark.parametrize("options", [[socket.SO_REUSEADDR], [socket.SO_REUSEPORT]])
@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_server_listens_on_a_port_that_is_kept(options: list[int], address: str) -> None:
    """Either option works, on one address or on all."""
    with kept_free(1) as port:
        assert is_free(HOST, port)
        with socket.socket() as server:
            for option in options:
                server.setsockopt(socket.SOL_SOCKET, option, 1)
            server.bind((address, port))
            server.listen()
            assert not is_free(HOST, port)
            socket.create_connection(("127.0.0.1", port)).close()


def test_ports_follow_each_other_and_are_given_back() -> None:
    """A file's models have ports that follow each other."""
    with kept_free(5) as first:
        assert all(is_free(HOST, first + more) for more in range(5))
    with contextlib.ExitStack() as stack:
        for more in range(5):
            holder = stack.enter_context(socket.socket())
            holder.bind(("127.0.0.1", first + more))
