"""A daemon as a command asks it: HTTP over TCP, TLS or a unix socket.

Owns the connection, the API key, and what an error becomes for the user. Which daemon is meant is
decided in `finding`.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlsplit

import attrs

from proxy.lifecycle.startup import CannotRun

UNIX = "unix:"
USUAL = 10.0  # seconds for an answer that needs no model
CONNECTING = 5.0  # seconds
LONGEST_ERROR = 1000  # characters
DENIED = (401, 403)


class NotThere(CannotRun):
    """No daemon answers."""

    status = 3


class Refused(CannotRun):
    """The daemon does not do what it is asked for.

    Attributes:
        code: HTTP status.
    """

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code
        self.status = 4 if code in DENIED else 1


class _UnixConnection(http.client.HTTPConnection):
    """The same over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket's file."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@attrs.frozen
class Daemon:
    """One daemon.

    Attributes:
        url: where it listens: ``http://HOST:PORT``, ``https://...``, with a path where a proxy adds
            one, or ``unix:PATH``.
        key: an API key of it; empty for none.
        certificate: file of the certificate that it shows, where its own folder says which.
    """

    url: str
    key: str = ""
    certificate: str = ""

    def ask(
        self, path: str, method: str = "GET", body: object = None, limit: float | None = USUAL
    ) -> Any:  # noqa: ANN401 -- JSON
        """Return an answer's JSON; its text where it is none.

        Args:
            path: of the route.
            method: of the request.
            body: sent as JSON, if it is there.
            limit: seconds of silence until the daemon counts as gone; None waits for ever.

        Raises:
            NotThere: nobody answers.
            Refused: the daemon refuses.
        """
        with self.opened(path, method, body, limit) as response:
            data = self._read(response)
        try:
            return json.loads(data)
        except ValueError:
            return data.decode("utf-8", "replace")

    def told(self, path: str, has: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 -- as `ask`
        """Return an answer that is an object; see `ask`.

        Args:
            path: of the route.
            has: a key that it always has.
            more: as for `ask`.

        Raises:
            NotThere: something else answers there.
        """
        found = self.ask(path, **more)
        if not isinstance(found, dict) or has not in found:
            raise NotThere(f"what answers at {self.url} is not llamadoze; name another with --url")
        return found

    def status(self) -> dict[str, Any]:
        """Return how everything stands."""
        return self.told("/api/status", "models")

    def lines(self, path: str, method: str = "GET", body: object = None) -> Iterator[bytes]:
        """Yield an answer's lines as they come, for as long as it goes on; raises as `ask`."""
        with self.opened(path, method, body, None) as response:
            try:
                yield from response
            except (OSError, http.client.HTTPException):
                return  # the daemon has ended

    @contextmanager
    def opened(
        self, path: str, method: str, body: object, limit: float | None
    ) -> Iterator[http.client.HTTPResponse]:
        """Send a request; yield the answer, of which only the head has come. See `ask`."""
        connection, prefix = self._connection()
        headers = {"Accept": "application/json, text/plain", "User-Agent": "llamadoze"}
        data = None
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        try:
            try:
                connection.connect()
                if connection.sock is not None:
                    connection.sock.settimeout(limit)
                connection.request(method, prefix + path, data, headers)
                response = connection.getresponse()
            except (OSError, http.client.HTTPException, UnicodeError) as error:
                raise self._gone(error) from error
            if response.status >= 400:
                raise self._refused(response)
            yield response
        finally:
            connection.close()

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        try:
            return response.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._gone(error) from error

    def _connection(self) -> tuple[http.client.HTTPConnection, str]:
        if self.url.startswith(UNIX):
            path = self.url.removeprefix(UNIX).removeprefix("//")
            return _UnixConnection(path, CONNECTING), ""
        try:
            parts = urlsplit(self.url if "://" in self.url else f"http://{self.url}")
            host, port = parts.hostname or "", parts.port
        except ValueError:
            host, port = "", None
        if not host or parts.scheme not in ("http", "https"):
            raise CannotRun(
                f"--url {self.url}: expected http://HOST:PORT, https://... or unix:PATH"
            )
        prefix = parts.path.rstrip("/").removesuffix("/v1").removesuffix("/ui")
        if parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=CONNECTING), prefix
        context = self._context()
        return http.client.HTTPSConnection(host, port, timeout=CONNECTING, context=context), prefix

    def _context(self) -> ssl.SSLContext:
        """Return how to know the daemon: by its own certificate, or as usual."""
        if not self.certificate:
            return ssl.create_default_context()
        context = ssl.create_default_context(cafile=self.certificate)
        context.check_hostname = False  # it is asked at an address of this machine
        # A certificate that an authority has signed counts by itself, without the authority's.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return context

    def _gone(self, error: Exception) -> NotThere:
        if isinstance(error, ssl.SSLCertVerificationError):
            return NotThere(
                f"{self.url}: the certificate is not known ({error.verify_message}). Name the file "
                "of a certificate that is trusted in SSL_CERT_FILE"
            )
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if isinstance(error, http.client.RemoteDisconnected) and self.url.startswith("http:"):
            return NotThere(f"{self.url} closes the connection; does it want https://?")
        return NotThere(
            f"no llamadoze answers at {self.url}: {said}; start one with 'llamadoze serve', or "
            "name another with --url"
        )

    def _refused(self, response: http.client.HTTPResponse) -> Refused:
        text = self._read(response).decode("utf-8", "replace")
        try:
            said = json.loads(text)["error"]["message"]
        except (ValueError, KeyError, TypeError):
            said = text.strip()[:LONGEST_ERROR] or response.reason
            server = response.headers.get("Server", "")
            said = f"{self.url} answers {response.status}{f' ({server})' if server else ''}: {said}"
        if response.status == 401:
            said = f"{said}. Set LLAMADOZE_API_KEY to one"
        return Refused(str(said), response.status)


def in_path(name: str) -> str:
    """Return a model's name as a part of a path."""
    return quote(name)


def in_query(text: str) -> str:
    """Return a text as a value in a query."""
    return quote(text, safe="")
