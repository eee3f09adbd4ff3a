"""The certificate for clients, reloaded after its renewal.

Owns the TLS context. The reloader decides when to read the files again.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import attrs
import structlog

from proxy.lifecycle.startup import CannotRun, Malformed

log: structlog.stdlib.BoundLogger = structlog.get_logger("proxy")


@attrs.define(eq=False)
class Certificate:
    """A certificate with its key, and the TLS context of all connections.

    Attributes:
        chain: the PEM file of the certificate.
        key: the PEM file of its key.
        context: the TLS context; new connections use the certificate that it loaded last.
    """

    chain: str
    key: str
    context: ssl.SSLContext
    _seen: tuple[bytes, bytes] = (b"", b"")

    @classmethod
    def load(cls, chain: str | None, key: str | None) -> Certificate | None:
        """Read the files. Return None if none are named.

        Raises:
            CannotRun: a file is missing, or the two do not belong together.
        """
        if chain is None and key is None:
            return None
        if chain is None or key is None:
            raise Malformed("HTTPS needs both --tls-cert-file and --tls-key-file")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.set_alpn_protocols(["http/1.1"])
        found = cls(chain, key, context)
        try:
            context.load_cert_chain(chain, key)
            found._seen = found._contents()
        except OSError as error:  # ssl.SSLError is one, too
            raise CannotRun(f"cannot use {chain} with {key}: {_reason(error)}") from error
        return found

    def renew(self) -> None:
        """Use the present content of the files for new connections, or log why that is impossible.

        The files are tried on a separate context first: a certificate without its key would leave
        the daemon with neither.
        """
        try:
            if (contents := self._contents()) == self._seen:
                return
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
                self.chain, self.key
            )
            self.context.load_cert_chain(self.chain, self.key)
        except OSError as error:
            log.error(  # noqa: TRY400 -- a traceback says nothing
                f"Certificate not renewed: cannot use {self.chain} with {self.key}: "
                f"{_reason(error)}; new connections still get the previous one",
                reason=_reason(error),
            )
            return
        self._seen = contents
        log.info(f"Certificate renewed: new connections get the one in {self.chain}")

    def _contents(self) -> tuple[bytes, bytes]:
        return Path(self.chain).read_bytes(), Path(self.key).read_bytes()


def _reason(error: OSError) -> str:
    return getattr(error, "reason", None) or error.strerror or str(error)
