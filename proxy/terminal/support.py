"""``llamadoze support``: one file for a bug report. Only the user sends it anywhere.

Owns the file's content, and that no secret is in it. The daemon's answers have no secrets; what
looks like one in a log is removed here.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from configschema import ConfigError
from configschema.reading import load
from configschema.rules.hiding import without_arguments
from proxy.lifecycle.startup import CannotRun
from proxy.terminal.asking import Daemon
from proxy.terminal.changed import in_a_line

LAST_LINES = 400
HEAD = """llamadoze support
Made at {at}. Keys, tokens and passwords are left out. Names of models, paths, and
prompts in the output of model servers are not: read the file before you pass it on.
"""


def report(daemon: Daemon, files: Sequence[Path]) -> str:
    """Return the text of the file.

    Args:
        daemon: the daemon, which may not be running.
        files: the configuration's files, in case no daemon answers.
    """
    parts = [HEAD.format(at=time.strftime("%Y-%m-%dT%H:%M:%S%z"))]
    for title, told in _sections(daemon, files):
        parts.append(f"\n==== {title}\n{_text(told)}\n")
    return "".join(parts)


def _sections(daemon: Daemon, files: Sequence[Path]) -> Iterator[tuple[str, Any]]:
    yield "versions", _versions()
    yield "machine", _machine()
    status = _asked(lambda: daemon.status())
    yield f"daemon at {daemon.url}", status
    if isinstance(status, str):  # the reason why there is none
        yield "configuration", _files(files)
        return
    yield "configuration", _asked(lambda: _shown(daemon.ask("/api/config")))
    for name in ("hardware", "timeline", "metrics/stats"):
        yield name, _asked(lambda name=name: daemon.ask(f"/api/{name}"))  # type: ignore[misc] # bound now
    yield "metrics", _asked(lambda: daemon.ask("/metrics"))
    yield "log", _asked(lambda: _last(daemon.ask("/logs?source=proxy&hide")))
    yield "output of models", _asked(lambda: _last(daemon.ask("/logs?source=upstream&hide")))


def _asked(ask: Callable[[], Any]) -> Any:  # noqa: ANN401 -- JSON
    """Return an answer, or the reason for its failure, so that the rest is still written."""
    try:
        return ask()
    except CannotRun as error:
        return f"({error})"


def _text(told: Any) -> str:  # noqa: ANN401 -- JSON
    return told if isinstance(told, str) else json.dumps(told, indent=1, ensure_ascii=False)


def _versions() -> dict[str, str]:
    known = {one.name: one.version for one in distributions() if one.name}
    return {"python": sys.version, **dict(sorted(known.items(), key=lambda pair: pair[0].lower()))}


def _machine() -> dict[str, Any]:
    return {
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "memory": _line_of("/proc/meminfo", "MemTotal"),
        "container": Path("/.dockerenv").exists() or Path("/run/.containerenv").exists(),
        "limit of open files": _line_of("/proc/self/limits", "Max open files"),
        "environment": sorted(
            name for name in os.environ if name.startswith(("LLAMADOZE", "CUDA"))
        ),
    }


def _line_of(file: str, beginning: str) -> str:
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in lines if line.startswith(beginning)), "")


def _files(files: Sequence[Path]) -> str:
    """Return the files without secrets, and their problems."""
    if not files:
        return "(none was found)"
    try:
        loaded = load(*files)
        texts, said = loaded.texts(), loaded.warnings
    except ConfigError as error:
        texts, said = error.texts(), (*error.problems, *error.warnings)
    except OSError as error:
        return f"(cannot read {error.filename}: {error.strerror})"
    return "\n".join([*map(str, said), *(f"# {name}\n{text}" for name, text in texts.items())])


def _shown(told: dict[str, Any]) -> str:
    said = [*told["problems"], *told["warnings"]]
    lines = [in_a_line(one) for one in said]
    return "\n".join([*lines, *(f"# {one['path']}\n{one['text']}" for one in told["files"])])


def _last(text: object) -> str:
    return without_arguments("\n".join(str(text).splitlines()[-LAST_LINES:]))
