"""The command line: run the daemon, check a file, show the demo.

Owns what each command does, and what is printed before there is a log. Imports of the daemon wait
until it is wanted: ``check`` answers without them.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TextIO

import attrs

from configschema import ConfigError, Here, Loaded, Problem, files_in, load
from proxy.command.arguments import DEFAULT_LISTEN, parser_of_all
from proxy.lifecycle.startup import CannotRun, refuse_strangers

REMEDY = "choose another with --listen"
TAKEN = f"Address already in use; {REMEDY}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments say and return the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name must not end the daemon
    try:
        refuse_strangers()
        options = parser_of_all().parse_args(arguments)
        status = COMMANDS[options.command](options)
    except CannotRun as error:
        _complain(f"llamadoze: {error}")
        return 1
    except ConfigError as error:
        _complain(*error.problems, *_as_warnings(error.warnings))
        return 1
    return status


def _serve(options: argparse.Namespace) -> int:
    if options.config is None and options.config_dir is None:
        raise CannotRun("no configuration: give one with --config FILE, or try 'llamadoze demo'")
    named = [] if options.config is None else [options.config]
    return _run(options, partial(_sources, named, options.config_dir))


def _run(options: argparse.Namespace, find: Callable[[], list[Path]], **more: float) -> int:
    """Run the daemon in the foreground; `find` names its files, now and for a reload."""
    gc.enable()
    from proxy.daemon.launch import launch
    from proxy.lifecycle.reloading import Files

    def warn(loaded: Loaded) -> None:
        _complain(*_as_warnings(loaded.warnings))

    read = partial(_load, listen=options.listen)
    launch(options, _address(options.listen), Files(find, read), warn, **more)
    return 0


def _check(options: argparse.Namespace) -> int:
    """Print what is to be said of a configuration; the exit status says whether it can be used."""
    files = _sources(options.files, options.config_dir)
    if not files:
        raise CannotRun("check what? give a FILE, or a folder with --config-dir")
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    models: list[str] = []
    try:
        loaded = _load(files)
        warnings, models = loaded.warnings, sorted(loaded.config.models)
    except ConfigError as error:
        problems, warnings = error.problems, error.warnings
    except CannotRun as error:
        if not options.json:
            raise
        problems = (Problem(str(files[0]), 1, 1, "", str(error)),)
    if options.json:
        _say(_as_json(problems, warnings, models))
    else:
        verdict = _count(problems, "problem") if problems else _count(models, "model")
        seen = f"{', '.join(map(str, files))}: {'refused' if problems else 'good'}, {verdict}"
        _say(*problems, *_as_warnings(warnings), seen)
    return 1 if problems else 0


def _count(things: Sequence[object], name: str) -> str:
    return f"{len(things) or 'no'} {name}{'' if len(things) == 1 else 's'}"


def _as_json(
    problems: Iterable[Problem], warnings: Iterable[Problem], models: Sequence[str]
) -> str:
    found = {"problems": problems, "warnings": warnings}
    lists = {name: [attrs.asdict(problem) for problem in some] for name, some in found.items()}
    return json.dumps({"good": not lists["problems"], "models": models, **lists}, indent=2)


def _schema(_: argparse.Namespace) -> int:
    from configschema.keys.editorschema import json_schema

    _say(json.dumps(json_schema(), indent=2))
    return 0


def _simulate(options: argparse.Namespace) -> int:
    from proxy.command.simulate import simulate

    gc.enable()  # it may play for minutes
    sources = _sources([] if options.config is None else [options.config], options.config_dir)
    if not sources:
        raise CannotRun("simulate what? give a configuration with --config FILE")
    _say(*simulate(_load(sources).config, options))
    return 0


def _demo(options: argparse.Namespace) -> int:
    from proxy.demo.prepare import MODELS, prepare
    from supervisor.processes.ports import HOST, is_free, kept_free

    _, port = _address(options.listen)
    if port and not is_free(HOST, port):  # said before the advice of what to try there
        raise CannotRun(f"cannot listen on {options.listen}: {TAKEN}")
    with kept_free(len(MODELS)) as first_port:
        file = prepare(Path(options.folder), options.listen, first_port)
        options.state_dir = options.state_dir or str(file.parent / "state")
        return _run(options, lambda: [file], grace=1.0)


def _sources(files: Sequence[str], folder: str | None) -> list[Path]:
    """Return the files of a configuration: those that are named, then those of the folder."""
    named = [Path(file) for file in files]
    if folder is None:
        return named
    try:
        found = files_in(folder)
    except OSError as error:
        raise CannotRun(f"cannot read {folder}: {error.strerror}") from error
    for twice in (path for path in named if path.resolve() in [one.resolve() for one in found]):
        raise CannotRun(f"{twice} is in {folder}, too; give it once")
    if not named and not found:
        raise CannotRun(f"{folder} has no file that ends in .yaml or .yml")
    return [*named, *found]


def _load(
    files: Sequence[Path],
    ports: Mapping[str, int] | None = None,
    listen: str = DEFAULT_LISTEN,
) -> Loaded:
    try:
        return load(*files, ports=ports or {}, place=Here(_address(listen)[1]))
    except IsADirectoryError as error:
        raise CannotRun(f"{error.filename} is a folder: give it with --config-dir") from error
    except OSError as error:
        raise CannotRun(f"cannot read {error.filename}: {error.strerror}") from error


def _address(text: str) -> tuple[str, int]:
    """Split ``HOST:PORT``; ``:PORT`` is every address, as llama-swap has it."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise CannotRun(f"--listen {text}: expected HOST:PORT, such as {DEFAULT_LISTEN}")
    return host.strip("[]"), int(port)


COMMANDS = {
    "serve": _serve,
    "check": _check,
    "schema": _schema,
    "simulate": _simulate,
    "demo": _demo,
}


def _as_warnings(problems: Iterable[Problem]) -> list[str]:
    return [f"{problem} (warning)" for problem in problems]


def _say(*lines: object) -> None:
    _write(sys.stdout, lines)


def _complain(*lines: object) -> None:
    _write(sys.stderr, lines)


def _write(stream: TextIO, lines: Iterable[object]) -> None:
    with contextlib.suppress(OSError):  # the reader went away
        stream.write("".join(f"{line}\n" for line in lines))
        stream.flush()
