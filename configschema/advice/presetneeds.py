"""What a preset needs of its model but seems to lack, and models that lack a preset.

Owns these warnings. Nothing here refuses a file: a script may set what its command does not show.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path as FilePath

import attrs

from configschema.advice.containeroptions import is_set_in
from configschema.keys.containers import ENGINES, container_of
from configschema.keys.elsewhere import is_placeholder
from configschema.keys.presets import IDLE_SECONDS, PRESETS, idle_seconds, words_of
from configschema.keys.schema import Model
from configschema.keys.simplecommands import commands_of
from configschema.text.problems import Fault, Path

DRIVER = FilePath("/proc/driver/nvidia/version")
_VERSION = re.compile(r"Kernel Module.*?\s(\d+)\.\d")
_SLEEP_ROUTE = re.compile(r"(?:https?://[^\s/]+|:\d+|:\$\w+)/sleep(?![\w-])")
SLOT_FOLDER = "--slot-save-path"
LONG_NAP = 30  # seconds; a longer wait for each swap is hardly wanted
TRUE = frozenset({"1", "true", "yes", "on"})


def advise_on_preset(model: Model, path: Path) -> Iterator[Fault]:
    """Yield what a preset needs but the model's command, environment and headers do not show."""
    yield from _advise_on_slots(model, path)
    if model.sleep is None:
        return
    if PRESETS[model.sleep].naps:
        yield from _advise_on_naps(model, path)
    needs, preset = PRESETS[model.sleep].needs, model.sleep
    by_itself = model.is_elsewhere or is_placeholder(model.cmd.argv)
    if by_itself and not container_of(model.cmd.argv):  # nothing shows how the server starts
        needs = attrs.evolve(needs, flags=(), env=())
    for flag in needs.flags:
        if not _has(model, flag):
            message = f"{preset} needs {{}}: add it to cmd, unless a script or a file sets it"
            yield Fault((*path, "cmd"), message, (flag,))
    for variable in needs.env:
        if not _is_set(model, variable):
            where = "in neither env nor cmd"
            if container_of(model.cmd.argv):
                where = f"not in the container, because env does not reach it: add -e {variable}"
            message = f"{preset} needs {{}}, which is {where}"
            yield Fault((*path, "sleep"), message, (variable,))
    for header in needs.headers:
        if header not in (name.lower() for name in model.control_headers):
            message = (
                f"{preset} needs the header {{}} in controlHeaders, unless the server needs no key"
            )
            yield Fault((*path, "sleep"), message, (header,))
    driver = _driver()
    has_program = driver >= needs.driver_with_program and shutil.which(needs.program) is not None
    if needs.driver > driver and not has_program:
        older = f"or {needs.driver_with_program} with the program {{}} on PATH"
        way = f"{preset} needs NVIDIA driver {needs.driver} or newer, {older}"
        yield Fault((*path, "sleep"), way, (needs.program,))


def advise_on_unused_sleep(model: Model, path: Path) -> Iterator[Fault]:
    """Yield if a server can sleep, or sleeps when it should stop, but no key makes use of it."""
    if model.recipe or model.sleep_endpoints or model.wake_endpoints:
        return
    needs = "VLLM_SERVER_DEV_MODE=1 in env, and a cmd that is the server itself"
    if _puts_to_sleep(model):
        message = "cmdStop puts the server to sleep, but llamadoze stops it: write sleep: vllm, "
        yield Fault((*path, "cmdStop"), message + needs)
    elif _has(model, "--enable-sleep-mode"):
        message = "the server can sleep, but llamadoze stops it: write sleep: vllm, "
        yield Fault((*path, "cmd"), message + needs)


def _advise_on_naps(model: Model, path: Path) -> Iterator[Fault]:
    """Yield if a server that falls asleep by itself never does, or only after a long time."""
    value = idle_seconds(model.cmd.argv) or "1"
    if not value.isdecimal() or value == "0":
        message = f"with {IDLE_SECONDS} {{}} the server never sleeps: write {IDLE_SECONDS} 2"
        yield Fault((*path, "cmd"), message, (value,))
    elif int(value) > LONG_NAP:
        message = f"other models wait {{}} s until it sleeps: write about {IDLE_SECONDS} 2"
        yield Fault((*path, "cmd"), message, (value,))


def _advise_on_slots(model: Model, path: Path) -> Iterator[Fault]:
    """Yield what keeping slots needs of llama.cpp's server, and other servers with slots."""
    if model.slots is None:
        return
    if model.sleep and not PRESETS[model.sleep].has_slots:
        message = f"has no effect with sleep: {model.sleep}, because only llama.cpp has slots"
        yield Fault((*path, "slots"), message)
    elif model.cmd and not is_placeholder(model.cmd.argv) and not _has(model, SLOT_FOLDER):
        message = "slots: keep needs {}: add it to cmd, unless a script or a file sets it"
        yield Fault((*path, "cmd"), message, (f"{SLOT_FOLDER} FOLDER",))


def _puts_to_sleep(model: Model) -> bool:
    """Whether ``cmdStop`` puts a server to sleep: by its route, or by a program's verb."""
    commands = commands_of(model.cmd_stop.argv)
    verbs = (one.words[1:] for one in commands if one.program not in ENGINES)
    return bool(_SLEEP_ROUTE.search(model.cmd_stop.text)) or any("sleep" in one for one in verbs)


def _driver() -> int:
    """Return the version of NVIDIA's driver from its kernel module, or 0 without a driver."""
    try:
        found = _VERSION.search(DRIVER.read_text())
    except (OSError, ValueError):
        return 0
    return int(found[1]) if found else 0


def _has(model: Model, flag: str) -> bool:
    """Whether a command has an option, with or without a value."""
    names = (word.partition("=")[0] for word in words_of(model.cmd.argv))
    return any(name in _spellings(flag.partition(" ")[0]) for name in names)


def _spellings(flag: str) -> tuple[str, str]:
    """Return a flag as documented, and with underscores, which the servers accept, too."""
    return flag, "--" + flag[2:].replace("-", "_")


def _is_set(model: Model, variable: str) -> bool:
    """Whether a variable is set in the model's environment, the daemon's, or the command."""
    name, _, wanted = variable.partition("=")
    given = dict(entry.partition("=")[::2] for entry in model.env)
    value = given.get(name, os.environ.get(name, ""))
    if container := container_of(model.cmd.argv):
        return is_set_in(container, variable, value)
    return value == wanted or value.lower() in TRUE or variable in model.cmd.text
