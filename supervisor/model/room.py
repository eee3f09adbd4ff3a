"""Whether a model needs the room of those that sleep beside it: learned from starts that failed.

Owns what was learned. Who sleeps beside it, and how they are stopped, is for its surroundings.
"""

from __future__ import annotations

from enum import Enum, auto

import attrs


class Need(Enum):
    """What is known of a model."""

    UNKNOWN = auto()
    TRIED = auto()  # the start that goes on has the room, after one that failed without
    KNOWN = auto()  # a start was good with the room, and was not without
    NONE = auto()  # a start failed with the room, too


@attrs.define(eq=False)
class Room:
    """The need of one model for the room of the sleepers on its GPU."""

    need: Need = attrs.field(default=Need.UNKNOWN, init=False)

    @property
    def must_be_made(self) -> bool:
        """Whether the next start must have it."""
        return self.need in (Need.TRIED, Need.KNOWN)

    def start_failed(self, *, beside_sleepers: bool) -> bool:
        """Learn from a start that failed; return whether it is worth another try, with the room.

        Args:
            beside_sleepers: whether that can have been the reason.
        """
        if self.need is Need.UNKNOWN and beside_sleepers:
            self.need = Need.TRIED
            return True
        if self.need is Need.TRIED:
            self.need = Need.NONE
        return False

    def start_was_broken_off(self) -> None:
        """Learn nothing from a start that neither failed nor was good."""
        if self.need is Need.TRIED:
            self.need = Need.UNKNOWN

    def start_was_good(self) -> None:
        """Learn from a start that was good."""
        if self.need is Need.TRIED:
            self.need = Need.KNOWN
        elif self.need is Need.NONE:  # what was wrong was mended
            self.need = Need.UNKNOWN
