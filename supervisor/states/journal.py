"""What is reported of the models as it happens, for those who count it or show it.

Owns the form. The log is written elsewhere, in its own words.
"""

from __future__ import annotations

import attrs

from supervisor.states.causes import Cause, Ruling
from supervisor.states.table import Event, State, Wish


class Journal:
    """A listener to what happens to the models. A method that is not overridden does nothing.

    The model's own task calls these methods: return at once, raise nothing.
    """

    def stepped(self, model: str, event: Event, state: State, took: float) -> None:
        """Take note of a model's step.

        Args:
            model: its id.
            event: what happened.
            state: the state that the model is in now.
            took: seconds that the model spent in the state before.
        """

    def failed(self, model: str, state: State, reason: str) -> None:
        """Take note that a model, or its way to sleep or to wake, failed in this state."""

    def asked(self, model: str, wish: Wish, cause: Cause) -> None:
        """Take note of why a model is asked for something; a step may or may not follow."""

    def ruled(self, ruling: Ruling) -> None:
        """Take note that a model starts or wakes, and which make room for it; a ruling may grow."""

    def wrote(self, model: str, output: bytes) -> None:
        """Take note of output of a model's process, or of a command that belongs to the model."""


@attrs.define(eq=False)
class Journals(Journal):
    """Passes everything on to several journals, or to none.

    Attributes:
        all: the journals that are told.
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
        """Tell that a model starts or wakes, and which models make room for it."""
        for journal in self.all:
            journal.ruled(ruling)

    def wrote(self, model: str, output: bytes) -> None:
        """Tell of output."""
        for journal in self.all:
            journal.wrote(model, output)


SILENT: Journal = Journals()
