"""Where a figure was measured: the machine, the interpreter, the installed packages.

Without these facts a figure means little.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.bench.traffic_targets import CORES, haproxy_program

PACKAGES = ("llamadoze", "trio", "httptools", "attrs", "structlog", "quart", "hypercorn")


def is_optimised() -> bool:
    """Whether this interpreter is an optimised build, by the same rule as in the Makefile."""
    said = sysconfig.get_config_var("CONFIG_ARGS") or ""
    of_debian = sys.base_prefix == "/usr" and "/usr/share/python-wheels" in said
    return "--enable-optimizations" in said or of_debian


def machine() -> dict[str, Any]:
    return {"cores": len(CORES), "cpu": processor(), "kernel": platform.release()}


def interpreter() -> dict[str, Any]:
    return {
        "implementation": platform.python_implementation(),
        "version": platform.python_version(),
        "optimised": is_optimised(),
        "compiler": platform.python_compiler(),
    }


def versions() -> dict[str, str]:
    """Return the versions of the important packages and of the other programs."""
    programs = {
        "haproxy": [haproxy_program() or "haproxy", "-v"],
        "valgrind": ["valgrind", "--version"],
    }
    said = {name: _said(command) for name, command in programs.items()}
    return {**{name: version(name) for name in PACKAGES}, **said}


def _said(command: list[str]) -> str:
    """Return the first line that a program prints, or nothing without the program."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.partition("\n")[0]


def processor() -> str:
    """Return the name of the CPU, as the kernel reports it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def told(where: dict[str, Any], by: dict[str, Any]) -> str:
    """Return a sentence that says where and with what a figure was measured."""
    cores = f"{where['cores']} core{'s' * (where['cores'] > 1)}"
    build = "an optimised build" if by["optimised"] else "not an optimised build"
    return (
        f"{cores} of {where['cpu']}, Linux {where['kernel']}, "
        f"{by['implementation']} {by['version']} ({build})"
    )


def allow_compiled() -> None:
    """Let programs that are started cache compiled modules, as they do for an operator."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
