"""Which model has made the objects that clients later request by id alone: responses, videos.

Owns the ids that were seen last. The model servers own the objects themselves.
"""

from __future__ import annotations

import re
from collections import OrderedDict

import attrs

MOST = 10_000  # ids that are remembered
ID = re.compile(rb'"id"\s*:\s*"((?:resp|video|vid)[-_][\w-]{1,200})"')


@attrs.define(eq=False)
class MadeBy:
    """Ids, each with the model's name in the request that made the object."""

    _known: OrderedDict[str, str] = attrs.field(factory=OrderedDict, init=False)

    def note(self, said: bytes, model: str) -> None:
        """Remember the id at the beginning of an answer, if there is one."""
        if found := ID.search(said):
            self._known[found[1].decode()] = model
            self._known.move_to_end(found[1].decode())
            if len(self._known) > MOST:
                self._known.popitem(last=False)

    def model_of(self, made: str) -> str:
        """Return the model that has made the object with an id; nothing if it is unknown."""
        return self._known.get(made, "")
