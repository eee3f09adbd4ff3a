"""The command line: its commands, and how errors end it.

Owns the exit status and the messages about a wrong command line. The other modules here have the
commands. The daemon's modules are imported only when they are needed.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from proxy.command import acting, checking, looking, serving, shells
from proxy.command.options import configured, examples
from proxy.command.options import serving as serving_options
from proxy.command.printing import as_warnings, complain, quiet_if_unread
from proxy.lifecycle.startup import CannotRun, refuse_strangers

WRONG = 2  # exit status of a command line that is wrong
INTERRUPTED = 130  # as in a shell after Ctrl-C
MEANT = {
    **dict.fromkeys(("port", "host", "address", "addr", "bind", "p"), "listen"),
    **dict.fromkeys(("verbose", "debug", "loglevel", "quiet", "v"), "log-level"),
    **dict.fromkeys(("conf", "cfg", "configuration", "c", "models"), "config"),
    **dict.fromkeys(("cert", "certfile", "tls-cert"), "tls-cert-file"),
    **dict.fromkeys(("key", "keyfile", "tls-key"), "tls-key-file"),
    **dict.fromkeys(("server", "endpoint", "base-url", "remote"), "url"),
    **dict.fromkeys(("watch", "reload"), "watch-config"),
}
"""What other programs call these options."""
SYNONYMS = {
    **dict.fromkeys(("start", "up", "daemon", "server"), "serve"),
    **dict.fromkeys(("stop", "down", "kill", "rm"), "unload"),
    **dict.fromkeys(("chat", "ask", "prompt"), "run"),
    **dict.fromkeys(("ls", "list", "models"), "ps --all"),
    **dict.fromkeys(("validate", "config", "lint"), "check"),
    **dict.fromkeys(("restart", "refresh"), "reload"),
    **dict.fromkeys(("new", "create", "setup"), "init"),
    **dict.fromkeys(("info", "health"), "status"),
    **dict.fromkeys(("log", "tail"), "logs"),
    "help": "--help",
}
"""What other programs, or people, may call these commands."""
DOWNLOADS = ("pull", "download", "fetch")
LIKENESS = 0.7  # of an unknown name to the command that is suggested


class Commands(click.Group):
    """The commands. Options before a command count as if they came after it."""

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command, or suggest one if the name is unknown."""
        name = arguments[0]
        if self.get_command(context, name) is None:
            raise click.UsageError(
                f"{name}: unknown command{_meant_by(name, self.commands)}", context
            )
        return super().resolve_command(context, arguments)

    def make_context(self, *arguments: Any, **more: Any) -> click.Context:  # noqa: ANN401 -- click's
        """Read the command line. ``--help`` prints here."""
        with quiet_if_unread():
            return super().make_context(*arguments, **more)

    def invoke(self, context: click.Context) -> Any:  # noqa: ANN401 -- click's
        """Run the command, and end quietly if the reader of the output has gone."""
        with quiet_if_unread():
            return super().invoke(context)


def _meant_by(name: str, known: Mapping[str, click.Command]) -> str:
    if Path(name).is_file():
        return f"; did you mean 'llamadoze serve --config {name}'?"
    if name in DOWNLOADS:
        return "; model servers download models, for example 'llama-server -hf NAME'"
    meant = SYNONYMS.get(name) or _nearest(name, known, LIKENESS)
    return f"; did you mean '{meant}'?" if meant else "; 'llamadoze --help' lists them"


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["--help", "-h", "-help"], "max_content_width": 100},
    epilog=examples(
        "llamadoze init                     write a first configuration",
        "llamadoze serve                    serve the models",
        "llamadoze ps                       in another terminal: show the models",
        "llamadoze run chat                 talk to a model",
        "llamadoze --config FILE            the same as 'serve --config FILE'",
    ),
)
@click.option("--version", "-version", is_flag=True, is_eager=True, help="Print the version.")
@configured
@serving_options
@click.pass_context
def llamadoze(context: click.Context, /, *, version: bool, **options: Any) -> None:  # noqa: ANN401 -- click's
    """One port for many local model servers; the model that makes room sleeps."""
    if version:
        shells.say_version()
        context.exit()
    source = context.get_parameter_source
    given = {name: v for name, v in options.items() if source(name) is ParameterSource.COMMANDLINE}
    context.default_map = dict.fromkeys(llamadoze.commands, given)
    if context.invoked_subcommand is None:
        context.invoke(serving.serve, **options)


for command in (
    *(serving.serve, looking.ps, looking.top, looking.status, acting.run, looking.logs),
    *(acting.load, acting.wake, acting.sleep, acting.unload, acting.pin, acting.unpin),
    *(acting.pause, acting.resume, acting.reload, checking.check, checking.schema),
    *(
        checking.simulate,
        checking.init,
        serving.demo,
        looking.support,
        shells.completion,
        shells.version,
    ),
):
    llamadoze.add_command(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command of the arguments, and return the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an odd name must not crash the daemon
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        refuse_strangers()
        status = llamadoze.main(words, prog_name="llamadoze", standalone_mode=False)
    except click.UsageError as error:
        return _say_usage(error, words)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except CannotRun as error:
        complain(f"llamadoze: {error}")
        return error.status
    except Exception as error:
        if not _say_problems(error):
            raise
        return 1
    return status if isinstance(status, int) else 0


def _say_usage(error: click.UsageError, words: Sequence[str]) -> int:
    """Report what is wrong with a command line, and what may be meant."""
    text = error.format_message()
    if isinstance(error, click.NoSuchOption):
        name = next((one for one in words if _is(error.option_name, one)), error.option_name)
        name = name.partition("=")[0]
        text = f"{name}: unknown option{_option_meant(name, error)}"
    elif "unexpected extra argument" in text and (file := _file_among(words, text)):
        text = f"{file}: an argument too many; did you mean --config {file}?"
    where = error.ctx.command_path if error.ctx else "llamadoze"
    first = text[:1] if text[:2].isupper() else text[:1].lower()  # HTTPS stays so
    complain(f"{where}: {first}{text[1:]}", f"Try '{where} --help'.")
    return WRONG


def _file_among(words: Iterable[str], text: str) -> str:
    """Return the configuration that a complaint is about; nothing if it is about another word."""
    return next((w for w in words if w.endswith((".yaml", ".yml")) and w in text), "")


def _is(option: str, word: str) -> bool:
    """Whether a word of the command line has the unknown option."""
    return word.partition("=")[0] == option or (len(option) == 2 and word.startswith(option))


def _option_meant(name: str, error: click.NoSuchOption) -> str:
    known = [one for each in (error.ctx.command.params if error.ctx else ()) for one in each.opts]
    meant = f"--{MEANT.get(name.lstrip('-'), '')}"
    near = meant if meant in known else _nearest(name, known)
    return f"; did you mean {near}?" if near else ""


def _nearest(name: str, known: Iterable[str], likeness: float = 0.6) -> str | None:
    from configschema.text.likeness import nearest  # only for errors

    return nearest(name, known, likeness)


def _say_problems(error: Exception) -> bool:
    """Report the problems of a configuration, if the error has any."""
    from configschema import ConfigError

    if isinstance(error, ConfigError):
        complain(*error.problems, *as_warnings(error.warnings))
    return isinstance(error, ConfigError)
