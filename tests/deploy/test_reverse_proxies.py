"""llamadoze works behind nginx, Caddy and haproxy with the documented configurations.

Each configuration comes from its page unchanged, except for port, name and certificate.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests.ports import free_port
from tests.proxy.certificates import make_certificate
from tests.proxy.daemon import stub
from tests.system.daemon import Process, started, wait_for, write

pytestmark = pytest.mark.deploy
PAGE = Path(__file__).parents[2] / "docs/how-to/reverse-proxies.md"
NAME = "llm.home.example"
BLOCKS = {"nginx": "nginx", "caddy": "caddyfile", "haproxy": "haproxy"}
BEYOND = "/usr/sbin:/usr/local/sbin"  # a user's PATH may lack these
OF_NGINX = """\
daemon off; pid {0}/pid; error_log stderr; events {{}}
http {{ access_log off; client_body_temp_path {0}/body; proxy_temp_path {0}/proxy;
fastcgi_temp_path {0}/fastcgi; uwsgi_temp_path {0}/uwsgi; scgi_temp_path {0}/scgi;
include {0}/shown; }}
"""
OF_CADDY = "{{\nadmin off\nauto_https disable_redirects\n}}\nimport {0}/shown\n"
MANY = 50 << 20


@attrs.frozen
class Front:
    daemon: Process
    port: int
    trusting: ssl.SSLContext

    def connection(self) -> http.client.HTTPSConnection:
        found = http.client.HTTPSConnection
        return found("localhost", self.port, context=self.trusting, timeout=30)

    def chat(self, **asked: object) -> http.client.HTTPSConnection:
        client = self.connection()
        client.request("POST", "/v1/chat/completions", json.dumps({"model": "a", **asked}))
        return client

    def in_flight(self) -> int:
        return int(self.daemon.running()["a"]["in_flight"])


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    file = write(tmp_path_factory.mktemp("daemon"), models={"a": stub()})
    with started("--config", file) as found:
        assert found.ask("POST", "/api/models/load/a")[0] == 200
        yield found


@pytest.fixture(scope="module", params=BLOCKS)
def front(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, daemon: Process
) -> Iterator[Front]:
    """Run the reverse proxy with the configuration that the page shows for it."""
    program = shutil.which(request.param, path=f"{os.environ['PATH']}:{BEYOND}")
    if not program:
        pytest.skip(f"there is no {request.param}: apt-get install nginx-light caddy haproxy")
    folder, port = tmp_path_factory.mktemp(request.param), free_port(1)
    trusting = ssl.create_default_context(cafile=make_certificate(folder)[0])
    both = (folder / "cert.pem").read_text() + (folder / "key.pem").read_text()
    (folder / "both.pem").write_text(both)
    (folder / "shown").write_text(shown(request.param, folder, port, daemon.port))
    (folder / "nginx").write_text(OF_NGINX.format(folder))
    (folder / "caddy").write_text(OF_CADDY.format(folder))
    command = {
        "nginx": [program, "-e", "stderr", "-c", str(folder / "nginx")],
        "caddy": [program, "run", "--adapter", "caddyfile", "--config", str(folder / "caddy")],
        "haproxy": [program, "-q", "-f", str(folder / "shown")],
    }[request.param]
    homes = dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"), str(folder))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **homes})
    try:
        wait_for(lambda: process.poll() is not None or listens(port))
        assert process.poll() is None, (folder / "log").read_text()
        yield Front(daemon, port, trusting)
    finally:
        process.terminate()
        process.wait(10)


def shown(name: str, folder: Path, port: int, upstream: int) -> str:
    """Return the page's configuration, changed for the test's ports and files."""
    text = PAGE.read_text().partition(f"```{BLOCKS[name]}")[2].partition("```")[0]
    folder_of_certbot = f"/etc/letsencrypt/live/{NAME}"
    for old, new in (
        ("127.0.0.1:8080", f"127.0.0.1:{upstream}"),
        (f"{folder_of_certbot}/fullchain.pem", f"{folder}/cert.pem"),
        (f"{folder_of_certbot}/privkey.pem", f"{folder}/key.pem"),
        (f"/etc/haproxy/{NAME}.pem", f"{folder}/both.pem"),
        ("listen 443", f"listen {port}"),
        ("bind :443", f"bind :{port}"),
        (f"\n{NAME} {{", f"\nlocalhost:{port} {{\n    tls {folder}/cert.pem {folder}/key.pem"),
        (NAME, "localhost"),
    ):
        text = text.replace(old, new)
    return text


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_stream_arrives_piece_by_piece(front: Front) -> None:
    """The stream must not arrive as one piece at its end."""
    client = front.chat(chunks=3, pause=0.5, stream=True)
    came = [time.monotonic() for line in client.getresponse() if line.startswith(b"data:")]
    client.close()
    assert (len(came), came[2] - came[0] > 0.5) == (3, True)


@pytest.mark.parametrize("asked", [{"delay": 20}, {"chunks": 200, "pause": 0.1}])
def test_a_client_that_disconnects_ends_its_request(front: Front, asked: dict[str, object]) -> None:
    """The client disconnects before the answer begins, or in mid-stream."""
    client = front.chat(**asked, stream=True)
    wait_for(lambda: front.in_flight() == 1)
    if "chunks" in asked:
        client.getresponse().readline()
    client.close()
    wait_for(lambda: front.in_flight() == 0, 3)


def test_a_body_of_50_mb_passes(front: Front) -> None:
    """The body arrives complete and unchanged."""
    body, client = os.urandom(1 << 20) * (MANY >> 20), front.connection()
    client.request("POST", "/upstream/a/x?count", body)
    told = json.loads(client.getresponse().read())
    client.close()
    assert told == {"size": MANY, "digest": hashlib.sha256(body).hexdigest()}
