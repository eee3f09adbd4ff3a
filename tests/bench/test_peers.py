"""How peers are read, and the configuration file with which they start."""

from __future__ import annotations

import sys

import pytest

from configschema import parse
from tests.bench.peers import Peer, configuration, listener, peers_in, running, taking_turns
from tests.bench.traffic_exchange import KEY

COMMAND = "a/proxy --config {config} --listen {listen}"
PEER = """
import json, os, subprocess, sys
config, listen = sys.argv[1:]
model = json.load(open(config))["models"]["m"]
command = model["cmd"].split()
port = listen.partition(":")[2]
subprocess.Popen(command)
os.execv(command[0], [*command[:-1], port])
"""
"""A proxy that forwards nothing: it answers by itself, beside the model server that it started."""


def test_peers_are_read_with_a_semicolon_between() -> None:
    """The name of a peer is the text before the first equals sign."""
    found = peers_in(f"one={COMMAND}; two = {COMMAND} --more=x ;")
    assert found == [Peer("one", COMMAND), Peer("two", f"{COMMAND} --more=x")]
    assert peers_in(" ") == []


def test_a_command_has_its_file_and_its_address() -> None:
    """The placeholders may stand anywhere in a word, and a quoted text stays one word."""
    peer = Peer("p", "a/proxy --config={config} 'two words' {listen}")
    words = peer.arguments("f.yaml", "127.0.0.1:9")
    assert words == ["a/proxy", "--config=f.yaml", "two words", "127.0.0.1:9"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a/proxy", "a peer is NAME=COMMAND"),
        ("one=a/proxy --config {config}", "not 'one=a/proxy --config {config}'"),
        (f"={COMMAND}", "a peer is NAME=COMMAND"),
        (f"haproxy={COMMAND}", "give the peer another name"),
        (f"one={COMMAND};one={COMMAND}", "two peers have the same name"),
    ],
)
def test_a_peer_that_cannot_be_measured_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        peers_in(text)


def test_the_file_of_a_peer_is_one_that_we_read() -> None:
    """The file causes no warning: every key has an effect, and none is llamadoze's alone."""
    loaded = parse(configuration(8123))
    assert list(loaded.warnings) == []
    assert loaded.config.models["m"].proxy == "http://127.0.0.1:8123"
    assert KEY in configuration(8123)
    loaded = parse(taking_turns(0.5, (8123, 8124)))
    assert list(loaded.warnings) == []
    assert list(loaded.config.models) == ["a", "b"]


def test_a_peer_is_ended_with_its_model_server() -> None:
    """A peer may fail to end what it has started."""
    script = Peer("p", f"{sys.executable} -I -S -c '{PEER}' {{config}} {{listen}}")
    with running(script) as target:
        assert target.port != target.server_port
        assert listener(target.server_port).pid != target.pid
    with pytest.raises(LookupError):
        listener(target.server_port)
