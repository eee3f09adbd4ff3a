"""Which model has made what clients ask for later by its id alone: responses, videos.

Owns the ids that were seen last. What a server keeps of them is its own.
"""

from __future__ import annotations

import re
from collections import OrderedDict

import attrs

MOST = 10_000  # ids that are remembered
ID = re.compile(rb'"id"\s*:\s*"((?:resp|video|vid)[-_][\w-]{1,200})"')


@attrs.define(eq=False)
class MadeBy:
    """Ids, each with the name that was asked for when it was made."""

    _known: OrderedDict[str, str] = attrs.field(factory=OrderedDict, init=False)

    def note(self, said: bytes, model: str) -> None:
        """Remember the id that an answer begins with, if it does."""
        if found := ID.search(said):
            self._known[found[1].decode()] = model
            self._known.move_to_end(found[1].decode())
            if len(self._known) > MOST:
                self._known.popitem(last=False)

    def model_of(self, made: str) -> str:
        """Return who has made what has an id; nothing if that is not known."""
        return self._known.get(made, "")
