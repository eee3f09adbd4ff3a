"""What a preset needs of a model, and is not there as far as can be seen; and where one is missing.

Owns these warnings. Nothing here refuses a file: a script may give what its caller does not show.
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
LONG_NAP = 30  # seconds that others hardly want to wait for each swap
TRUE = frozenset({"1", "true", "yes", "on"})


def advise_on_preset(model: Model, path: Path) -> Iterator[Fault]:
    """Yield what a model's preset needs and its command, environment and headers do not show."""
    yield from _advise_on_slots(model, path)
    if model.sleep is None:
        return
    if PRESETS[model.sleep].naps:
        yield from _advise_on_naps(model, path)
    needs, preset = PRESETS[model.sleep].needs, model.sleep
    by_itself = model.is_elsewhere or is_placeholder(model.cmd.argv)
    if by_itself and not container_of(model.cmd.argv):  # nothing shows how it is started
        needs = attrs.evolve(needs, flags=(), env=())
    for flag in needs.flags:
        if not _has(model, flag):
            message = f"{preset} needs {{}}, which is not in cmd; if it is given otherwise, good"
            yield Fault((*path, "cmd"), message, (flag,))
    for variable in needs.env:
        if not _is_set(model, variable):
            where = "neither in env nor in cmd"
            if container_of(model.cmd.argv):
                where = f"not in the container, which env does not reach: add -e {variable}"
            message = f"{preset} needs {{}}, which is {where}"
            yield Fault((*path, "sleep"), message, (variable,))
    for header in needs.headers:
        if header not in (name.lower() for name in model.control_headers):
            message = f"{preset} needs the header {{}} in controlHeaders, unless it asks for no key"
            yield Fault((*path, "sleep"), message, (header,))
    driver = _driver()
    has_program = driver >= needs.driver_with_program and shutil.which(needs.program) is not None
    if needs.driver > driver and not has_program:
        older = f"or {needs.driver_with_program} with the program {{}} on PATH"
        way = f"{preset} needs NVIDIA's driver {needs.driver} or newer, {older}"
        yield Fault((*path, "sleep"), way, (needs.program,))


def advise_on_unused_sleep(model: Model, path: Path) -> Iterator[Fault]:
    """Yield that a model server can sleep, or is put to sleep at its stop, and no key says so."""
    if model.recipe or model.sleep_endpoints or model.wake_endpoints:
        return
    needs = "with VLLM_SERVER_DEV_MODE=1, and a cmd that is the server itself"
    if _puts_to_sleep(model):
        message = "cmdStop puts to sleep what is ended all the same: write sleep: vllm, "
        yield Fault((*path, "cmdStop"), message + needs)
    elif _has(model, "--enable-sleep-mode"):
        message = "the server can sleep and is stopped instead: write sleep: vllm, "
        yield Fault((*path, "cmd"), message + needs)


def _advise_on_naps(model: Model, path: Path) -> Iterator[Fault]:
    """Yield that a server which falls asleep by itself never does so, or lets others wait long."""
    value = idle_seconds(model.cmd.argv) or "1"
    if not value.isdecimal() or value == "0":
        message = f"with {IDLE_SECONDS} {{}} it never sleeps: write {IDLE_SECONDS} 2"
        yield Fault((*path, "cmd"), message, (value,))
    elif int(value) > LONG_NAP:
        message = f"what needs its room waits {{}} s for its sleep: write {IDLE_SECONDS} 2, or so"
        yield Fault((*path, "cmd"), message, (value,))


def _advise_on_slots(model: Model, path: Path) -> Iterator[Fault]:
    """Yield what keeping slots needs of llama.cpp's server, and that no other has any."""
    if model.slots is None:
        return
    if model.sleep and not PRESETS[model.sleep].has_slots:
        message = f"has no effect with sleep: {model.sleep}: only llama.cpp's server has slots"
        yield Fault((*path, "slots"), message)
    elif model.cmd and not is_placeholder(model.cmd.argv) and not _has(model, SLOT_FOLDER):
        message = "slots: keep needs {}, which is not in cmd; if it is given otherwise, good"
        yield Fault((*path, "cmd"), message, (f"{SLOT_FOLDER} FOLDER",))


def _puts_to_sleep(model: Model) -> bool:
    """Whether ``cmdStop`` asks a server for its sleep: by its route, or by a program's verb."""
    commands = commands_of(model.cmd_stop.argv)
    verbs = (one.words[1:] for one in commands if one.program not in ENGINES)
    return bool(_SLEEP_ROUTE.search(model.cmd_stop.text)) or any("sleep" in one for one in verbs)


def _driver() -> int:
    """Return the version of NVIDIA's driver, as its kernel module tells it; 0 without one."""
    try:
        found = _VERSION.search(DRIVER.read_text())
    except (OSError, ValueError):
        return 0
    return int(found[1]) if found else 0


def _has(model: Model, flag: str) -> bool:
    """Whether a command has an option, which may be given with a value."""
    names = (word.partition("=")[0] for word in words_of(model.cmd.argv))
    return any(name in _spellings(flag.partition(" ")[0]) for name in names)


def _spellings(flag: str) -> tuple[str, str]:
    """Return a flag as it is documented, and with underscores, which the servers take, too."""
    return flag, "--" + flag[2:].replace("-", "_")


def _is_set(model: Model, variable: str) -> bool:
    """Whether a variable is on: in the model's environment, the daemon's, or within the command."""
    name, _, wanted = variable.partition("=")
    given = dict(entry.partition("=")[::2] for entry in model.env)
    value = given.get(name, os.environ.get(name, ""))
    if container := container_of(model.cmd.argv):
        return is_set_in(container, variable, value)
    return value == wanted or value.lower() in TRUE or variable in model.cmd.text
