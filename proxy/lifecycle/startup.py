"""What keeps the command from running: the error, and other packages with the names of ours.

Owns the look for such packages. What else can be wrong is found where it is needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

STRANGERS = {"supervisor": "supervisor", "proxy": "proxy.py"}
"""Packages of ours, and the distribution on PyPI whose package has the same name."""
_INFO = re.compile(r"(?P<name>[\w.]+)-(?P<version>[^-]+?)(-py[\d.]+)?\.(dist|egg)-info")


class CannotRun(Exception):
    """What was asked cannot be done; the text is the one line an operator needs.

    Attributes:
        status: the exit status of the command.
    """

    status = 1


def refuse_strangers() -> None:
    """Refuse to run where another distribution's files may stand in the place of ours.

    Raises:
        CannotRun: one was found. vLLM brings one.
    """
    for package, distribution in STRANGERS.items():
        for version in _versions_beside(package, distribution):
            raise CannotRun(
                f"PyPI's {distribution} {version} is installed here too, and has a package "
                f"{package!r}, as llamadoze has: one overwrites the other. Install llamadoze into "
                "an environment of its own: uv tool install llamadoze, or pipx install llamadoze"
            )


def _versions_beside(package: str, distribution: str) -> Iterator[str]:
    """Yield the versions of a distribution that lie where a package is imported from."""
    spec = find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        for info in Path(folder).parent.glob("*-info"):
            match = _INFO.fullmatch(info.name)
            if match and match["name"].lower().replace("_", ".") == distribution:
                yield match["version"]
