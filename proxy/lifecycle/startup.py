"""What prevents the command from running: the error, and packages with the same names.

Owns the search for such packages. Other reasons are found where they matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

STRANGERS = {"supervisor": "supervisor", "proxy": "proxy.py"}
"""llamadoze's packages, and the PyPI distribution that has a package of the same name."""
_INFO = re.compile(r"(?P<name>[\w.]+)-(?P<version>[^-]+?)(-py[\d.]+)?\.(dist|egg)-info")


class CannotRun(Exception):
    """The command cannot be done. The text is the one line that an operator needs.

    Attributes:
        status: the command's exit status.
    """

    status = 1


class Malformed(CannotRun):
    """An option, or the variable in its place, has a value that cannot be read."""

    status = 2


def refuse_strangers() -> None:
    """Refuse to run if another distribution's files may have replaced llamadoze's.

    Raises:
        CannotRun: there is such a distribution. vLLM installs one.
    """
    for package, distribution in STRANGERS.items():
        for version in _versions_beside(package, distribution):
            raise CannotRun(
                f"PyPI's {distribution} {version} is installed here too. Both it and llamadoze "
                f"have a package {package!r}, and overwrite each other. Install llamadoze into its "
                "own environment: uv tool install llamadoze, or pipx install llamadoze"
            )


def _versions_beside(package: str, distribution: str) -> Iterator[str]:
    """Yield a distribution's versions in the folder that a package is imported from."""
    spec = find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        for info in Path(folder).parent.glob("*-info"):
            match = _INFO.fullmatch(info.name)
            if match and match["name"].lower().replace("_", ".") == distribution:
                yield match["version"]
