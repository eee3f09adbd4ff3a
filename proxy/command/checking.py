"""Commands that need no daemon: write a file, check it, print its schema, simulate requests.

Owns their output. ``check`` imports no more than it needs, so that it answers at once.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from proxy.command import sources
from proxy.command.options import as_json, configured, examples, refusing_malformed
from proxy.command.printing import as_warnings, complain, say, say_json
from proxy.lifecycle.startup import CannotRun
from proxy.simulation.usualtimes import TIMES

if TYPE_CHECKING:
    from configschema import Problem


@click.command(epilog=examples("llamadoze check", "llamadoze check models.yaml --json"))
@click.argument("files", metavar="[FILE]...", nargs=-1)
@configured
@as_json
def check(
    files: tuple[str, ...], config: str | None, config_dir: str | None, *, as_json: bool
) -> int:
    """Print every problem of a configuration.

    If you give several files, they are checked as one configuration. The exit status is 1 if the
    configuration cannot be used.
    """
    from configschema import ConfigError

    given = files or ((config,) if config else ())
    if not given and not config_dir:
        given = sources.named(None, None)
    found = sources.sources(given, config_dir)
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    models: list[str] = []
    try:
        loaded = sources.read(found)
        warnings, models = loaded.warnings, sorted(loaded.config.models)
    except ConfigError as error:
        problems, warnings = error.problems, error.warnings
    except CannotRun as error:
        if not as_json:
            raise
        problems = (_unread(found[0], error),)
    if as_json:
        say_json(_told(problems, warnings, models))
    else:
        verdict = _count(problems, "problem") if problems else _count(models, "model")
        seen = f"{', '.join(map(str, found))}: {'refused' if problems else 'good'}, {verdict}"
        say(*problems, *as_warnings(warnings), seen)
    return 1 if problems else 0


def _unread(file: Path, error: CannotRun) -> Problem:
    from configschema import Problem

    return Problem(str(file), 1, 1, "", str(error))


def _count(things: Sequence[object], name: str) -> str:
    return f"{len(things) or 'no'} {name}{'' if len(things) == 1 else 's'}"


def _told(
    problems: Iterable[Problem], warnings: Iterable[Problem], models: Sequence[str]
) -> dict[str, Any]:
    found = {"problems": problems, "warnings": warnings}
    lists = {name: [attrs.asdict(problem) for problem in some] for name, some in found.items()}
    return {"good": not lists["problems"], "models": models, **lists}


@click.command()
@click.option("--strict", is_flag=True, help="Refuse unknown keys, so that editors show typos.")
def schema(strict: bool) -> None:
    """Print the configuration's JSON Schema for editors."""
    from configschema.keys.editorschema import json_schema

    say_json(json_schema(strict=strict))


def _times(command: Any) -> Any:  # noqa: ANN401 -- as click's own
    for name, (usual, meaning) in reversed(TIMES.items()):
        text = (
            f"Seconds that {meaning} (default: {usual:g}). Repeat it with MODEL= for single models."
        )
        words = f"{text[:1].upper()}{text[1:]}"
        given = click.option(f"--{name}", multiple=True, metavar="[MODEL=]SECONDS", help=words)
        command = given(command)
    return command


@click.command(
    epilog=examples(
        "llamadoze simulate --trace requests.csv --start 40 --wake 2",
        "llamadoze simulate --log llamadoze.log --max-wait 30 --picture day.svg",
    )
)
@configured
@click.option("--trace", metavar="FILE", help="CSV: seconds,model[,serve].")
@click.option("--log", metavar="FILE", help="llamadoze's own log, as JSON lines.")
@_times
@click.option(
    "--memory",
    multiple=True,
    metavar="[MODEL=]GIB[/REST]",
    help="Memory of a model on each of its GPUs, or on the host if there is no GPU. REST is what "
    "it keeps while asleep. Repeat it with MODEL= for single models.",
)
@click.option(
    "--gpu", multiple=True, metavar="GIB", help="A GPU's memory for models. Repeat it for each GPU."
)
@click.option(
    "--host", metavar="GIB", help="Host memory for models. Default: the file's hostMemory."
)
@click.option(
    "--state-dir",
    metavar="DIR",
    help="A daemon's state folder, whose learned sizes and times are used.",
)
@click.option(
    "--max-wait", type=click.IntRange(0), metavar="SECONDS", help="Overrides the file's maxWait."
)
@click.option(
    "--min-active",
    type=click.IntRange(0),
    metavar="SECONDS",
    help="Overrides the file's minActive.",
)
@click.option(
    "--picture", metavar="FILE.svg", help="Draw which model used the memory at which time."
)
@click.option(
    "--queue-wait",
    multiple=True,
    metavar="[ALLOCATION=]SECONDS[:SECONDS]",
    help="How long jobs of a cluster wait: the median, and the 90th percentile. Repeat it with "
    "ALLOCATION= for single allocations.",
)
@click.option(
    "--node-failures",
    type=click.FloatRange(0),
    default=0.0,
    metavar="NUMBER",
    help="How often each node of a cluster fails in a year.",
)
@click.option(
    "--seed", type=int, default=1, metavar="NUMBER", help="The seed of these random values."
)
@as_json
def simulate(
    config: str | None,
    config_dir: str | None,
    *,
    as_json: bool,
    **options: Any,  # noqa: ANN401 -- click's
) -> None:
    """Simulate a trace of requests in virtual time.

    The simulation makes the daemon's own decisions.
    """
    if bool(options["trace"]) == bool(options["log"]):
        raise click.UsageError("no requests to simulate: give either --trace FILE or --log FILE")
    from proxy.simulation.simulate import simulate as play
    from proxy.simulation.sizes import Played

    gc.enable()  # a simulation may take minutes
    names = sources.named(config, config_dir)
    found = sources.sources([name for name in names if name != config_dir], config_dir)
    read = sources.read(found).config
    with refusing_malformed():
        report = play(read, Played(**options))
    say_json(report.data()) if as_json else say(*report.lines())


@click.command(
    epilog=examples(
        "llamadoze init",
        "llamadoze init --models /data/gguf --output ~/.config/llamadoze/config.yaml",
        "llamadoze init --output -",
    )
)
@click.option(
    "--models",
    multiple=True,
    metavar="DIR",
    help="A folder with GGUF files, in place of the usual ones. Repeat it for several folders.",
)
@click.option(
    "--output",
    "-o",
    default=sources.NAME,
    show_default=True,
    metavar="FILE",
    help="The file to write; '-' is standard output.",
)
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
@as_json
def init(models: tuple[str, ...], output: str, *, force: bool, as_json: bool) -> int:
    """Write a first configuration for this machine.

    llamadoze looks for llama-server, vLLM and Ollama on PATH, for GGUF files, for models in the
    caches of Hugging Face and Ollama, and for GPUs.
    """
    from proxy.beginning.findings import look
    from proxy.beginning.firstfile import WHERE, left_out, names, notes, served, written

    for folder in models:
        path = Path(folder).expanduser()
        if not path.is_dir():
            what = "not a folder" if path.exists() else "there is no such folder"
            raise CannotRun(f"--models {folder}: {what}")
    if as_json and output == "-":
        raise click.UsageError("--json describes the written file: name it with --output FILE")
    found = look(models)
    if models and not any(one.format == "gguf" for one in found.weights):
        complain(f"--models {', '.join(models)}: there are no GGUF files in it")
    if not found.programs:
        if as_json:
            say_json({"file": None, "models": [], "programs": [], "notes": left_out(found)})
        complain(WHERE, *left_out(found))
        return 1
    text = written(found)
    if output == "-":
        say(text.rstrip())
        return 0
    _write(Path(output).expanduser(), text, force=force)
    if as_json:
        told = {"file": output, "models": names(found), "programs": served(found)}
        say_json({**told, "notes": notes(found)})
        return 0
    say(f"wrote {output}, with {_count(names(found), 'model')} for {', '.join(served(found))}")
    complain(*notes(found))
    say("Next: 'llamadoze check', then 'llamadoze serve'")
    return 0


def _write(path: Path, text: str, *, force: bool) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        way = "is a folder" if path.is_dir() else "exists already: --force overwrites it"
        raise CannotRun(f"{path} {way}") from None
    except OSError as error:
        raise CannotRun(f"cannot write {path}: {error.strerror}") from error
