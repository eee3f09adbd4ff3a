"""Warnings about what this machine lacks: programs, model files, a port of the daemon's own.

Owns what can be seen without starting anything. Nothing here refuses a file, because another
machine may serve it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path as File

from configschema.keys.elsewhere import OUTSIDE
from configschema.keys.schema import Config, Model
from configschema.keys.simplecommands import program_of
from configschema.rules.addresses import local_port
from configschema.text.problems import Fault, Path

MODEL_OPTIONS = ("-m", "--model")
ELSEWHERE = OUTSIDE | {"apptainer", "singularity", "enroot"}
"""Programs whose servers do not see the files of this machine."""
MODEL_FILES = (".gguf", ".safetensors", ".bin", ".onnx")
LISTEN = "llamadoze itself listens on port {}: change startPort or --listen"


def advise_on_machine(
    config: Config, environ: Mapping[str, str], listen: int | None
) -> Iterator[Fault]:
    """Yield what would fail on this machine.

    Args:
        config: the configuration to serve.
        environ: the daemon's environment.
        listen: the port that the daemon listens on, if known.
    """
    for name, model in config.models.items():
        path: Path = ("models", name)
        if model.in_ is None:  # else its files and programs are on a node
            yield from _programs(model, path, environ)
            yield from _model_file(model, path)
        if listen and local_port(model.proxy) == listen:
            yield Fault((*path, "proxy"), LISTEN, (listen,))


def _programs(model: Model, path: Path, environ: Mapping[str, str]) -> Iterator[Fault]:
    commands = {
        "cmd": model.cmd,
        "cmdStop": model.cmd_stop,
        "cmdSleep": model.cmd_sleep,
        "cmdWake": model.cmd_wake,
    }
    places = _path_of(model, environ)
    for key, command in commands.items():
        if command.argv and "${" not in command.argv[0]:
            program = command.argv[0]
            if shutil.which(program, path=places) is None:
                where = "does not exist" if "/" in program else "is not on PATH"
                yield Fault((*path, key), f"program {{}} {where}", (program,))


def _path_of(model: Model, environ: Mapping[str, str]) -> str | None:
    pairs = (entry.partition("=") for entry in model.env)
    own = {name: value for name, equals, value in pairs if equals}
    return own.get("PATH", environ.get("PATH"))


def _model_file(model: Model, path: Path) -> Iterator[Fault]:
    if not ELSEWHERE.isdisjoint(map(program_of, model.cmd.argv)):
        return
    for option, value in zip(model.cmd.argv, model.cmd.argv[1:], strict=False):
        is_file = value.endswith(MODEL_FILES) and "${" not in value and "://" not in value
        if option in MODEL_OPTIONS and is_file and not os.access(File(value), os.R_OK):
            yield Fault((*path, "cmd"), f"the file of {option} cannot be read: {{}}", (value,))
