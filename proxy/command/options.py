"""What the command line takes, wherever it takes it: options that several commands share.

Owns their names and words, and imports nothing that takes time. What is done with them is each
command's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

DEFAULT_LISTEN = "127.0.0.1:8080"
URL = "LLAMADOZE_URL"
CONFIG = "LLAMADOZE_CONFIG"
LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("auto", "json", "text")

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
Decorator = Callable[[Decorated], Decorated]


def option(*names: str, **more: Any) -> Decorator[Any]:  # noqa: ANN401 -- as click.option
    """Return an option; one with ``--`` is taken with one dash, too, as llama-swap does."""
    return click.option(*names, **more)


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
        help="The configuration (YAML); without it, the first that is there of "
        f"${CONFIG}, ./config.yaml, ~/.config/llamadoze/config.yaml and "
        "/etc/llamadoze/config.yaml.",
    ),
    click.option(
        "--config-dir",
        "-config-dir",
        metavar="DIR",
        help="More of the configuration: all .yaml and .yml files of a folder.",
    ),
)
"""Which configuration."""

serving = _all(
    click.option(
        "--listen",
        "-listen",
        metavar="ADDRESS",
        default=DEFAULT_LISTEN,
        show_default=True,
        help="Where to serve: HOST:PORT, :PORT for all addresses, or unix:PATH.",
    ),
    click.option(
        "--tls-cert-file", "-tls-cert-file", metavar="FILE", help="Certificate (PEM): serve HTTPS."
    ),
    click.option("--tls-key-file", "-tls-key-file", metavar="FILE", help="Its key (PEM)."),
    click.option(
        "--state-dir",
        metavar="DIR",
        help="Where the state is kept. Without it, a folder for each configuration in "
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
        help="auto is text on a terminal, and JSON lines elsewhere.",
    ),
    click.option(
        "--log-level",
        type=click.Choice(LEVELS),
        help="The lowest level that is written, instead of the file's logLevel.",
    ),
)
"""How to serve."""

connecting = _all(
    click.option(
        "--url",
        metavar="URL",
        help="The daemon: http://HOST:PORT, https://HOST:PORT or unix:PATH. "
        f"Without it, ${URL}, else the daemon of this user.",
    ),
    click.option(
        "--state-dir", metavar="DIR", help="The state folder of the daemon that is meant."
    ),
    click.option("--config", "-config", metavar="FILE", help="The configuration of that daemon."),
)
"""Which daemon to ask."""

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def meant(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return which daemon is meant, as `finding.find` takes it."""
    files = [options["config"]] if options.get("config") else []
    return {"url": options.get("url"), "folder": options.get("state_dir"), "files": files}


def examples(*lines: str) -> str:
    """Return examples as they stand below a command's help."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
