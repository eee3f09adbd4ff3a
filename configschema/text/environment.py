"""``${env.NAME}`` in a file: hidden before YAML reads the text, replaced by its value afterwards.

Owns both ends. While YAML reads, a use is a plain word of the same length. So a use may stand where
braces have a meaning (``[${env.KEY}]``), columns stay right, and YAML never parses a value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs

_USE = re.compile(r"\$\{env\.([a-zA-Z_][a-zA-Z0-9_]*)\}")
# Characters of Unicode's private use stand for the dollar sign and the braces.
_HIDDEN = re.compile("\ue000\ue001env\\.([a-zA-Z_][a-zA-Z0-9_]*)\ue002")
MARK = "\ue000"
_UNUSABLE = re.compile("[\n\r\0]")


@attrs.define
class Environment:
    """The environment while a file is read.

    Attributes:
        variables: all environment variables.
        used: for each value that was inserted, how the file wrote it; messages show that instead.
        written: for each text with such values in it, how the file wrote the text.
    """

    variables: Mapping[str, str]
    used: dict[str, str] = attrs.field(factory=dict)
    written: dict[str, str] = attrs.field(factory=dict)

    def put_in(self, text: str) -> tuple[str, dict[str, str]]:
        """Return the text with its values inserted, and for each use that failed, the reason."""
        faults: dict[str, str] = {}

        def value(use: re.Match[str]) -> str:
            name = use[1]
            found = self.variables.get(name)
            if found is None:
                faults[f"${{env.{name}}}"] = f"environment variable '{name}' is not set"
            elif _UNUSABLE.search(found):
                reason = f"environment variable '{name}' has more than one line of text"
                faults[f"${{env.{name}}}"] = reason
            else:
                self.used[found] = f"${{env.{name}}}"
                return found
            return ""

        whole = _HIDDEN.sub(value, text)
        if not faults:
            self.written[whole] = as_written(text)
        return whole, faults


def put_aside(text: str) -> str:
    """Hide each use from YAML."""
    return _USE.sub("\ue000\ue001env.\\1\ue002", text)


def as_written(text: str) -> str:
    """Show hidden uses again, for messages that quote a text before its values are inserted."""
    return _HIDDEN.sub(r"${env.\1}", text)
