"""What the command line takes: its options and commands, and what ``--help`` says of them.

Owns words only, and imports nothing that takes time. What is done with them is in `cli`.
"""

from __future__ import annotations

import argparse

DEFAULT_LISTEN = "127.0.0.1:8080"
TIMES = {
    "start": (30.0, "a start takes"),
    "stop": (1.0, "the end of a process takes"),
    "sleep": (1.0, "falling asleep takes"),
    "wake": (1.0, "a wake takes"),
    "serve": (5.0, "a request takes whose time is not in the trace"),
}
"""What a simulation is told: usual seconds, and of what."""


def parser_of_all() -> argparse.ArgumentParser:
    """Return the parser; ``command`` of what it finds says what to do."""
    parser = argparse.ArgumentParser(
        prog="llamadoze",
        allow_abbrev=False,
        description="One port for many local model servers; the one that makes room sleeps.",
    )
    parser.add_argument("--version", "-version", action=_Version, nargs=0, help="print the version")
    parser.add_argument("--config", "-config", metavar="FILE", help="the configuration (YAML)")
    _add_folder(parser, None)
    _add_serving(parser, DEFAULT_LISTEN)
    parser.set_defaults(command="serve")
    commands = parser.add_subparsers(metavar="COMMAND")
    check = commands.add_parser(
        "check", allow_abbrev=False, help="print every problem of a configuration"
    )
    check.add_argument(
        "files", metavar="FILE", nargs="*", help="several are put together: one configuration"
    )
    _add_folder(check, argparse.SUPPRESS)
    check.add_argument("--json", action="store_true", help="print them as JSON")
    check.set_defaults(command="check")
    schema = commands.add_parser(
        "schema", allow_abbrev=False, help="print the JSON Schema of the configuration"
    )
    schema.set_defaults(command="schema")
    demo = commands.add_parser(
        "demo", allow_abbrev=False, help="serve two tiny models with real llama.cpp servers"
    )
    demo.add_argument("--folder", default=".demo", help="where its files go (default: .demo)")
    play = commands.add_parser(
        "simulate", allow_abbrev=False, help="play a trace of requests in virtual time"
    )
    play.add_argument("--config", "-config", metavar="FILE", default=argparse.SUPPRESS)
    _add_folder(play, argparse.SUPPRESS)
    _add_trace_arguments(play)
    play.set_defaults(command="simulate")
    # Not given here, an option keeps what was given before the command.
    _add_serving(demo, argparse.SUPPRESS)
    demo.set_defaults(command="demo")
    return parser


def _add_folder(parser: argparse.ArgumentParser, default: str | None) -> None:
    parser.add_argument(
        "--config-dir",
        "-config-dir",
        metavar="DIR",
        default=default,
        help="more of the configuration: all .yaml and .yml files of a folder",
    )


def _add_serving(parser: argparse.ArgumentParser, listen: str) -> None:
    parser.add_argument(
        "--listen",
        "-listen",
        metavar="HOST:PORT",
        default=listen,
        help=f"where to serve (default: {DEFAULT_LISTEN})",
    )
    for what in ("cert", "key"):
        parser.add_argument(
            f"--tls-{what}-file",
            f"-tls-{what}-file",
            metavar="FILE",
            default=None if listen is not argparse.SUPPRESS else argparse.SUPPRESS,
            help=f"PEM file of the {'certificate' if what == 'cert' else 'key'}: serve HTTPS",
        )
    parser.add_argument(
        "--state-dir",
        metavar="DIR",
        default=None if listen is not argparse.SUPPRESS else argparse.SUPPRESS,
        help="where the state is kept (default: by the files' names in $XDG_STATE_HOME/llamadoze)",
    )
    parser.add_argument(
        "--watch-config",
        "-watch-config",
        action="store_true",
        default=False if listen is not argparse.SUPPRESS else argparse.SUPPRESS,
        help="reload the configuration when its files change",
    )
    parser.add_argument(
        "--log-format",
        choices=["auto", "json", "text"],
        default="auto" if listen is not argparse.SUPPRESS else argparse.SUPPRESS,
        help="auto is text on a terminal, JSON lines elsewhere",
    )


class _Version(argparse.Action):
    """Print the version and exit; looking it up takes a moment that others need not wait."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"llamadoze {version('llamadoze')}")  # noqa: T201 -- this is what was asked for
        parser.exit()


def _add_trace_arguments(parser: argparse.ArgumentParser) -> None:
    sources = parser.add_mutually_exclusive_group(required=True)
    sources.add_argument("--trace", metavar="FILE", help="CSV: seconds,model[,serve]")
    sources.add_argument("--log", metavar="FILE", help="llamadoze's own log, as JSON lines")
    for name, (usual, meaning) in TIMES.items():
        parser.add_argument(
            f"--{name}",
            action="append",
            default=[],
            metavar="[MODEL=]SECONDS",
            help=f"{meaning} (default: {usual:g}); once for all, again for one model",
        )
    _add_memory_arguments(parser)
    parser.add_argument(
        "--max-wait", type=_seconds, metavar="SECONDS", help="instead of the file's"
    )
    parser.add_argument(
        "--min-active", type=_seconds, metavar="SECONDS", help="instead of the file's"
    )
    parser.add_argument("--picture", metavar="FILE.svg", help="draw who held the memory when")


def _add_memory_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--memory",
        action="append",
        default=[],
        metavar="[MODEL=]GIB[/REST]",
        help="what a model takes of each of its GPUs, or of the host's memory where there is none, "
        "and what its sleep leaves; once for all, again for one model",
    )
    parser.add_argument(
        "--gpu",
        action="append",
        default=[],
        metavar="GIB",
        help="memory of a GPU that models may have; again for one more",
    )
    parser.add_argument(
        "--host", metavar="GIB", help="the host's memory for models, instead of the file's"
    )
    parser.add_argument(
        "--state-dir",
        metavar="DIR",
        default=argparse.SUPPRESS,
        help="a daemon's state folder: what it has learned of sizes and times is used",
    )


def _seconds(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected whole seconds, found {text}")
    return int(text)
