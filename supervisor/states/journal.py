"""What is told of the models as it happens, for those who count or show it.

Owns the form. The log is not written from here; it has its own words.
"""

from __future__ import annotations

import attrs

from supervisor.states.causes import Cause, Ruling
from supervisor.states.table import Event, State, Wish


class Journal:
    """Somebody who is told; of what is not overridden, nothing is done.

    Called from the model's own task: return at once, raise nothing.
    """

    def stepped(self, model: str, event: Event, state: State, took: float) -> None:
        """Take note of a model's step.

        Args:
            model: its id.
            event: what happened.
            state: where it stands since.
            took: seconds that it stood where it was before.
        """

    def failed(self, model: str, state: State, reason: str) -> None:
        """Take note that a model, or a way to put it to sleep or to wake it, failed in a state."""

    def asked(self, model: str, wish: Wish, cause: Cause) -> None:
        """Take note of why a model is asked for something; the step to it follows, or none."""

    def ruled(self, ruling: Ruling) -> None:
        """Take note that a model comes up, and who leaves for it; one that is known grows."""

    def wrote(self, model: str, output: bytes) -> None:
        """Take note of what a model's process, or a command that belongs to it, wrote."""


@attrs.define(eq=False)
class Journals(Journal):
    """Tells several; nobody, if there are none.

    Attributes:
        all: who is told.
    """

    all: tuple[Journal, ...] = ()

    def stepped(self, model: str, event: Event, state: State, took: float) -> None:
        """Tell of a step."""
        for journal in self.all:
            journal.stepped(model, event, state, took)

    def failed(self, model: str, state: State, reason: str) -> None:
        """Tell of a failure."""
        for journal in self.all:
            journal.failed(model, state, reason)

    def asked(self, model: str, wish: Wish, cause: Cause) -> None:
        """Tell why a model is asked for something."""
        for journal in self.all:
            journal.asked(model, wish, cause)

    def ruled(self, ruling: Ruling) -> None:
        """Tell that a model comes up, and who leaves for it."""
        for journal in self.all:
            journal.ruled(ruling)

    def wrote(self, model: str, output: bytes) -> None:
        """Tell of output."""
        for journal in self.all:
            journal.wrote(model, output)


SILENT: Journal = Journals()
