"""Options that several commands share.

Owns their names and help, and imports nothing that is slow. Each command decides what they do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from proxy.lifecycle.startup import Malformed

DEFAULT_LISTEN = "127.0.0.1:8080"
URL = "LLAMADOZE_URL"
CONFIG = "LLAMADOZE_CONFIG"
LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("auto", "json", "text")

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
Decorator = Callable[[Decorated], Decorated]


def _all(*options: Decorator[Any]) -> Decorator[Any]:
    def decorate(command: Any) -> Any:  # noqa: ANN401 -- as click's own
        for one in reversed(options):
            command = one(command)
        return command

    return decorate


configured = _all(
    click.option(
        "--config",
        "-config",
        metavar="FILE",
        help="The configuration (YAML). Default: the first that exists of "
        f"${CONFIG}, ./config.yaml, ~/.config/llamadoze/config.yaml and "
        "/etc/llamadoze/config.yaml.",
    ),
    click.option(
        "--config-dir",
        "-config-dir",
        metavar="DIR",
        help="A folder whose .yaml and .yml files belong to the configuration, too.",
    ),
)
"""Options that choose the configuration."""

serving = _all(
    click.option(
        "--listen",
        "-listen",
        metavar="ADDRESS",
        default=DEFAULT_LISTEN,
        show_default=True,
        help="The address to serve: HOST:PORT, :PORT for all addresses, or unix:PATH.",
    ),
    click.option(
        "--tls-cert-file",
        "-tls-cert-file",
        metavar="FILE",
        help="Serve HTTPS with this certificate (PEM).",
    ),
    click.option(
        "--tls-key-file", "-tls-key-file", metavar="FILE", help="The certificate's key (PEM)."
    ),
    click.option(
        "--state-dir",
        metavar="DIR",
        help="The folder for the daemon's state. Default: one for each configuration in "
        "$XDG_STATE_HOME/llamadoze.",
    ),
    click.option(
        "--watch-config",
        "-watch-config",
        is_flag=True,
        help="Reload the configuration when its files change.",
    ),
    click.option(
        "--log-format",
        type=click.Choice(FORMATS),
        default="auto",
        show_default=True,
        help="auto means text on a terminal, and JSON lines elsewhere.",
    ),
    click.option(
        "--log-level",
        type=click.Choice(LEVELS),
        help="The lowest level to log. Default: the file's logLevel.",
    ),
)
"""Options of a daemon."""

connecting = _all(
    click.option(
        "--url",
        metavar="URL",
        help="The daemon's address: http://HOST:PORT, https://HOST:PORT or unix:PATH. "
        f"Default: ${URL}, else this user's daemon.",
    ),
    click.option("--state-dir", metavar="DIR", help="Choose the daemon by its state folder."),
    click.option(
        "--config", "-config", metavar="FILE", help="Choose the daemon by its configuration."
    ),
)
"""Options that choose the daemon."""

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


@contextmanager
def refusing_malformed() -> Iterator[None]:
    """Report a malformed value that the block finds as a wrong use of the command."""
    try:
        yield
    except Malformed as error:
        raise click.UsageError(str(error)) from error


def meant(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the choice of a daemon, as arguments of `finding.find`."""
    files = [options["config"]] if options.get("config") else []
    return {"url": options.get("url"), "folder": options.get("state_dir"), "files": files}


def examples(*lines: str) -> str:
    """Return examples for the end of a command's help."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
