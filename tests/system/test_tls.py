"""HTTPS works as HTTP does."""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.proxy.certificates import make_certificate
from tests.proxy.daemon import stub
from tests.system.daemon import Process, run, started, wait_for, write

BODY = {"model": "a"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a key and its certificate."""
    found = tmp_path_factory.mktemp("tls")
    make_certificate(found)
    return found


@pytest.fixture(scope="module")
def daemon(folder: Path) -> Iterator[Process]:
    file = write(folder, models={"a": stub()}, sendLoadingState=True)
    options = ["--tls-cert-file", str(folder / "cert.pem"), "--tls-key-file"]
    with started("--config", file, *options, str(folder / "key.pem")) as found:
        assert found.said("Listening on https://127.0.0.1:")
        yield found


def connection(folder: Path, daemon: Process) -> http.client.HTTPSConnection:
    trusting = ssl.create_default_context(cafile=str(folder / "cert.pem"))
    return http.client.HTTPSConnection("localhost", daemon.port, context=trusting, timeout=20)


def in_flight(client: http.client.HTTPSConnection) -> int:
    client.request("GET", "/running")
    return sum(row["in_flight"] for row in json.loads(client.getresponse().read())["running"])


def test_requests_views_and_streams_are_served(folder: Path, daemon: Process) -> None:
    """All of them use one connection."""
    client = connection(folder, daemon)
    for more in ({}, {"chunks": 3, "stream": True}):
        client.request("POST", "/v1/chat/completions", json.dumps({**BODY, **more}))
        reply = client.getresponse()
        assert reply.status == 200
        assert reply.read().endswith(b"}" if not more else b'{"n": 2}\n\n')
    client.request("GET", "/v1/models")
    assert json.loads(client.getresponse().read())["data"][0]["id"] == "a"
    client.close()


def test_a_client_that_leaves_stops_the_model_server(folder: Path, daemon: Process) -> None:
    """A client that disconnects has the same effect as without TLS."""
    client = connection(folder, daemon)
    client.request("POST", "/v1/chat/completions", json.dumps({**BODY, "delay": 30}))
    other = connection(folder, daemon)
    wait_for(lambda: in_flight(other) == 1)
    client.close()
    wait_for(lambda: in_flight(other) == 0, 3)
    other.close()


def test_a_client_that_leaves_in_mid_upload_leaves_nothing(folder: Path, daemon: Process) -> None:
    """No request stays in flight, and the log has no fault."""
    client = connection(folder, daemon)
    client.putrequest("POST", "/upstream/a/x")
    client.putheader("content-length", "1000000")
    client.endheaders(b"x" * 1000)
    other = connection(folder, daemon)
    wait_for(lambda: in_flight(other) == 1)
    client.close()
    wait_for(lambda: in_flight(other) == 0, 3)
    other.close()
    assert not any("Traceback" in line or "Error in ASGI" in line for line in daemon.lines)


def test_bytes_that_are_no_tls_harm_nobody(folder: Path, daemon: Process) -> None:
    """A connection without a TLS handshake harms no other client."""
    with pytest.raises((OSError, http.client.HTTPException)):
        daemon.ask("GET", "/health")
    client = connection(folder, daemon)
    client.request("GET", "/health")
    assert client.getresponse().read() == b"OK"
    client.close()


def test_half_of_what_is_needed_is_an_error(folder: Path) -> None:
    """A key that does not belong to its certificate is an error, too."""
    file = write(folder, models={"a": stub()})
    cert = str(folder / "cert.pem")
    found = run("--config", file, "--tls-cert-file", cert)
    assert (found.returncode, "both" in found.stderr) == (2, True)
    found = run("--config", file, "--tls-cert-file", cert, "--tls-key-file", cert)
    assert (found.returncode, "cannot use" in found.stderr) == (1, True)


def shown(port: int) -> str:
    return ssl.get_server_certificate(("127.0.0.1", port), timeout=10)


def test_a_renewed_certificate_is_taken_at_sighup(tmp_path: Path) -> None:
    """New connections use it; an unusable one changes nothing, and commands trust the new one."""
    make_certificate(tmp_path)
    first = (tmp_path / "cert.pem").read_text()
    file, env = write(tmp_path, models={"a": stub()}), {"XDG_STATE_HOME": str(tmp_path / "state")}
    options = [f"--tls-{what}-file={tmp_path / what}.pem" for what in ("cert", "key")]
    with started("--config", file, *options, env=env) as daemon:
        assert shown(daemon.port) == first
        (tmp_path / "cert.pem").write_text("nonsense")
        daemon.process.send_signal(signal.SIGHUP)
        wait_for(lambda: daemon.said("Certificate not renewed"))
        assert shown(daemon.port) == first
        make_certificate(tmp_path)
        second = (tmp_path / "cert.pem").read_text()
        daemon.process.send_signal(signal.SIGHUP)
        wait_for(lambda: daemon.said("Certificate renewed"))
        assert shown(daemon.port) == second != first
        told = run("status", env={**os.environ, **env})
        assert (told.returncode, told.stderr) == (0, "")
        unknown = run("status", "--url", f"https://127.0.0.1:{daemon.port}")
        assert (unknown.returncode, "SSL_CERT_FILE" in unknown.stderr) == (3, True)
        trusting = {**os.environ, **env, "SSL_CERT_FILE": str(tmp_path / "cert.pem")}
        assert run("status", "--url", f"https://localhost:{daemon.port}", env=trusting).stdout
        plain = run("status", "--url", f"http://127.0.0.1:{daemon.port}")
        assert plain.stderr.endswith("closes the connection; try https:// instead\n")


def test_a_command_says_that_the_daemons_certificate_cannot_be_read(tmp_path: Path) -> None:
    """The file may be gone, or another user's."""
    make_certificate(tmp_path)
    certificate = tmp_path / "cert.pem"
    file = write(tmp_path, models={"a": stub()})
    options = ["--tls-cert-file", str(certificate), "--tls-key-file", str(tmp_path / "key.pem")]
    state = ["--state-dir", str(tmp_path / "state")]
    with started("--config", file, *options, *state):
        assert run("ps", *state).returncode == 0
        certificate.unlink()
        asked = run("ps", *state)
    assert asked.returncode == 3
    assert "Traceback" not in asked.stderr
    assert f"cannot read the daemon's certificate {certificate}: No such file" in asked.stderr
