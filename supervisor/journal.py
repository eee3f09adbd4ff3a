"""What is told of the models as it happens, for those who count or show it.

Owns the form. The log is not written from here; it has its own words.
"""

from __future__ import annotations

from typing import Protocol

from supervisor.states import Event, State


class Journal(Protocol):
    """Somebody who is told. Called from the model's own task: return at once, raise nothing."""

    def stepped(self, model: str, event: Event, state: State, took: float) -> None:
        """A model took a step.

        Args:
            model: its id.
            event: what happened.
            state: where it stands since.
            took: seconds that it stood where it was before.
        """

    def failed(self, model: str, state: State) -> None:
        """A model, or a way to put it to sleep or to wake it, failed in this state."""


class _Silent:
    def stepped(self, model: str, event: Event, state: State, took: float) -> None:
        pass

    def failed(self, model: str, state: State) -> None:
        pass


SILENT: Journal = _Silent()
