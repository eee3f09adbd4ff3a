"""What a preset needs of a model's command and environment, and is not there as far as can be seen.

Owns these warnings. Nothing here refuses a file: a script may give what its caller does not show.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

from configschema.keys.presets import PRESETS
from configschema.keys.schema import Model
from configschema.text.problems import Fault, Path

TRUE = frozenset({"1", "true", "yes", "on"})


def advise_on_preset(model: Model, path: Path) -> Iterator[Fault]:
    """Yield what a model's preset needs and its command, environment and headers do not show."""
    if model.sleep is None:
        return
    needs, preset = PRESETS[model.sleep].needs, model.sleep
    for flag in needs.flags:
        if not any(word in _spellings(flag) for word in _words(model)):
            message = f"{preset} needs {{}}, which is not in cmd; if it is given otherwise, good"
            yield Fault((*path, "cmd"), message, (flag,))
    for variable in needs.env:
        if not _is_set(model, variable):
            message = f"{preset} needs {{}}, which is neither in env nor in cmd"
            yield Fault((*path, "sleep"), message, (variable,))
    for header in needs.headers:
        if header not in (name.lower() for name in model.control_headers):
            message = f"{preset} needs the header {{}} in controlHeaders, unless it asks for no key"
            yield Fault((*path, "sleep"), message, (header,))
    if needs.program and shutil.which(needs.program) is None:
        yield Fault((*path, "sleep"), f"{preset} needs the program {{}} on PATH", (needs.program,))


def _words(model: Model) -> Iterator[str]:
    """Yield the words of a command, also of a script that it gives to a shell."""
    for argument in model.cmd.argv:
        for word in argument.split():
            yield word.partition("=")[0]


def _spellings(flag: str) -> tuple[str, str]:
    """Return a flag as it is documented, and with underscores, which the servers take, too."""
    return flag, "--" + flag[2:].replace("-", "_")


def _is_set(model: Model, variable: str) -> bool:
    """Whether a variable is on: in the model's environment, the daemon's, or within the command."""
    name, _, wanted = variable.partition("=")
    given = dict(entry.partition("=")[::2] for entry in model.env)
    value = given.get(name, os.environ.get(name, ""))
    return value == wanted or value.lower() in TRUE or variable in model.cmd.text
