"""Requests to a daemon: HTTP over TCP, TLS or a unix socket.

Owns the connection, the API key, and the user's view of errors. `finding` chooses the daemon.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

import attrs

from proxy.lifecycle.startup import CannotRun

UNIX = "unix:"
USUAL = 10.0  # seconds for an answer that needs no model
CONNECTING = 5.0  # seconds
LONGEST_ERROR = 1000  # characters
DENIED = (401, 403)
ENDED = "the daemon there has probably ended"


class NotThere(CannotRun):
    """No daemon answers at the address."""

    status = 3


class BrokeOff(NotThere):
    """The connection broke before the whole answer had arrived."""


class Refused(CannotRun):
    """The daemon refuses a request.

    Attributes:
        code: the HTTP status.
    """

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code
        self.status = 4 if code in DENIED else 1


class _UnixConnection(http.client.HTTPConnection):
    """An HTTP connection over a unix socket."""

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
        url: its address: ``http://HOST:PORT``, ``https://...``, with a path if a proxy adds one, or
            ``unix:PATH``.
        key: an API key for it; empty for none.
        certificate: the file of its certificate, if its state folder names one.
    """

    url: str
    key: str = ""
    certificate: str = ""

    def ask(
        self, path: str, method: str = "GET", body: object = None, limit: float | None = USUAL
    ) -> Any:  # noqa: ANN401 -- JSON
        """Return an answer's JSON, or its text if it is not JSON.

        Args:
            path: the route's path.
            method: the request's method.
            body: the request's body, sent as JSON; None for none.
            limit: seconds of silence until the daemon counts as gone; None waits without limit.

        Raises:
            NotThere: no daemon answers.
            BrokeOff: the answer is not whole.
            Refused: the daemon refuses the request.
        """
        with self.opened(path, method, body, limit) as response:
            data = self._read(response)
        try:
            return json.loads(data)
        except ValueError:
            return data.decode("utf-8", "replace")

    def told(self, path: str, has: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 -- as `ask`
        """Return an answer that is a JSON object; see `ask`.

        Args:
            path: the route's path.
            has: a key that the answer always has.
            more: as for `ask`.

        Raises:
            NotThere: another program answers there.
        """
        found = self.ask(path, **more)
        if not isinstance(found, dict) or has not in found:
            raise NotThere(
                f"the server at {self.url} is not llamadoze; give another address with --url"
            )
        return found

    def status(self) -> dict[str, Any]:
        """Return the state of the daemon and its models."""
        return self.told("/api/status", "models")

    def lines(self, path: str, method: str = "GET", body: object = None) -> Iterator[bytes]:
        """Yield an answer's lines as they arrive, until it ends. Raises as `ask` does."""
        with self.opened(path, method, body, None) as response, _named(self._cut):
            yield from _lines_of(response)

    @contextmanager
    def opened(
        self, path: str, method: str, body: object, limit: float | None
    ) -> Iterator[http.client.HTTPResponse]:
        """Send a request, and yield the answer as soon as its head has arrived. See `ask`."""
        connection, prefix = self._connection()
        headers = {"Accept": "application/json, text/plain", "User-Agent": "llamadoze"}
        data = None
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        with closing(connection):
            with _named(self._gone):
                connection.connect()
            if connection.sock is not None:
                connection.sock.settimeout(limit)
            with _named(self._unanswered):
                connection.request(method, prefix + path, data, headers)
                response = connection.getresponse()
            if response.status >= 400:
                raise self._refused(response)
            yield response

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        with _named(self._cut):
            return response.read()

    def _connection(self) -> tuple[http.client.HTTPConnection, str]:
        if self.url.startswith(UNIX):
            path = self.url.removeprefix(UNIX).removeprefix("//")
            return _UnixConnection(path, CONNECTING), ""
        parts = _parts(self.url)
        host, port = parts.hostname or "", parts.port
        prefix = parts.path.rstrip("/").removesuffix("/v1").removesuffix("/ui")
        if parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=CONNECTING), prefix
        context = self._context()
        return http.client.HTTPSConnection(host, port, timeout=CONNECTING, context=context), prefix

    def _context(self) -> ssl.SSLContext:
        """Return how to verify the daemon: by its own certificate, or as usual."""
        if not self.certificate:
            return ssl.create_default_context()
        try:
            context = ssl.create_default_context(cafile=self.certificate)
        except (OSError, ssl.SSLError) as error:  # it is gone, or another user may not read it
            raise NotThere(
                f"{self.url}: cannot read the daemon's certificate {self.certificate}: "
                f"{error.strerror or error}. Give the address with --url, and set SSL_CERT_FILE to "
                "the file of a certificate to trust"
            ) from None
        context.check_hostname = False  # the request goes to an address of this machine
        # A certificate signed by an authority counts without the authority's own certificate.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return context

    def _gone(self, error: Exception) -> NotThere:
        if isinstance(error, ssl.SSLCertVerificationError):
            return NotThere(
                f"{self.url}: the certificate is not trusted ({error.verify_message}). Set "
                "SSL_CERT_FILE to the file of a certificate to trust"
            )
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return NotThere(
            f"no llamadoze answers at {self.url}: {said}; start one with 'llamadoze serve', or "
            "give another address with --url"
        )

    def _unanswered(self, error: Exception) -> NotThere:
        """Return what has happened to a request that the server has got, or a part of it."""
        if not isinstance(error, ConnectionError):
            return self._gone(error)
        if self._expects_tls():
            return NotThere(f"{self.url} closes the connection; try https:// instead")
        return NotThere(f"{self.url} closed the connection before it answered; {ENDED}")

    def _cut(self, error: Exception) -> NotThere:
        if isinstance(error, TimeoutError):
            return self._gone(error)
        return BrokeOff(f"the answer of {self.url} broke off; {ENDED}")

    def _expects_tls(self) -> bool:
        """Whether the server wants HTTPS at an address that was given as HTTP."""
        if self.url.startswith(UNIX) or (parts := _parts(self.url)).scheme != "http":
            return False
        secure = attrs.evolve(self, url=f"https://{parts.netloc}")
        with closing(secure._connection()[0]) as connection:
            try:
                connection.connect()
            except OSError as error:
                return isinstance(error, ssl.SSLCertVerificationError)
        return True

    def _refused(self, response: http.client.HTTPResponse) -> Refused:
        text = self._read(response).decode("utf-8", "replace")
        try:
            said = json.loads(text)["error"]["message"]
        except (ValueError, KeyError, TypeError):
            is_page = text.lstrip().startswith("<")
            said = "" if is_page else text.strip()[:LONGEST_ERROR]
            said = said or f"{response.reason}; it may not be llamadoze"
            server = response.headers.get("Server", "")
            said = f"{self.url} answers {response.status}{f' ({server})' if server else ''}: {said}"
        if response.status == 401:
            said = f"{said}. Set LLAMADOZE_API_KEY to a valid key"
        return Refused(str(said), response.status)


def _lines_of(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield the lines. Unlike iteration over a response, `read1` tells a break from an end."""
    rest = b""
    while piece := response.read1():
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole
    if rest:
        yield rest


def _parts(url: str) -> SplitResult:
    return urlsplit(url if "://" in url else f"http://{url}")


def is_address(url: str) -> bool:
    """Whether a text is the address of a daemon, in one of the forms that `Daemon` knows."""
    if url.startswith(UNIX):
        return bool(url.removeprefix(UNIX).removeprefix("//"))
    try:
        parts = _parts(url)
        return bool(parts.hostname) and parts.port != 0 and parts.scheme in ("http", "https")
    except ValueError:
        return False


@contextmanager
def _named(name: Callable[[Exception], NotThere]) -> Iterator[None]:
    """Give a failure of the connection in the block a name for the user."""
    try:
        yield
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        raise name(error) from error


def in_path(name: str) -> str:
    """Return a model's name, quoted for a path."""
    return quote(name)


def in_query(text: str) -> str:
    """Return a text, quoted as a value in a query."""
    return quote(text, safe="")
