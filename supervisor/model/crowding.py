"""Whether a model needs more room than it had: learned from starts and wakes that failed.

Owns what was learned. Its surroundings know which models sleep beside it, and stop them. The
scheduler decides who makes room by memory.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from enum import Enum, auto

import attrs

from supervisor.model.known import Known
from supervisor.model.surroundings import Surroundings
from supervisor.processes.output import LogRing
from supervisor.states.racing import race
from supervisor.states.standing import Standing

LINES_LOOKED_AT = 50  # lines of its output that are searched for words about memory
SHORT_OF_MEMORY = re.compile(
    r"out of memory|OutOfMemory|OUT_OF_MEMORY|bad_alloc|cannot allocate memory|"
    r"(?:failed|unable|not able) to allocate|alloc\w* failed|(?:not enough|insufficient) memory|"
    r"no available memory for the cache|free memory on device|SIGKILL",
    re.IGNORECASE,
)
"""What servers or the kernel say if memory is missing: CUDA, ROCm, Vulkan, llama.cpp, vLLM ("Free
memory on device ... is less than desired GPU memory utilization"), the C++ runtime."""
LACKS_WITH_ALL = (
    "The model lacked memory even with all there is. Make it take less (in cmd: a shorter context, "
    "fewer layers on the GPU), or give it more GPUs (gpus)"
)


class Need(Enum):
    """What is known of a model's need for room."""

    UNKNOWN = auto()
    TRIED = auto()  # the present start has the room, after a start that failed without it
    KNOWN = auto()  # a start succeeded with the room, and had failed without it
    NONE = auto()  # a start failed with the room, too


@attrs.define(eq=False)
class Room:
    """One model's need for more room than what is free."""

    need: Need = attrs.field(default=Need.UNKNOWN, init=False)

    @property
    def must_be_made(self) -> bool:
        """Whether the next start must have more room."""
        return self.need in (Need.TRIED, Need.KNOWN)

    def start_failed(self, *, beside_sleepers: bool) -> bool:
        """Learn from a failed start; return whether another try with more room is worthwhile.

        Args:
            beside_sleepers: whether sleepers, or a lack of memory, can have been the reason.
        """
        if self.need is Need.UNKNOWN and beside_sleepers:
            self.need = Need.TRIED
            return True
        if self.need is Need.TRIED:
            self.need = Need.NONE
        return False

    def start_was_broken_off(self) -> None:
        """Learn nothing from a start that was broken off."""
        if self.need is Need.TRIED:
            self.need = Need.UNKNOWN

    def start_was_good(self) -> None:
        """Learn from a start that succeeded."""
        if self.need is Need.TRIED:
            self.need = Need.KNOWN
        elif self.need is Need.NONE:  # what was wrong has been fixed
            self.need = Need.UNKNOWN


@attrs.define(eq=False)
class Crowding:
    """What is done about too little room for one model.

    Attributes:
        at: the model's state.
        around: the other models.
        known: the memory that the model takes.
        room: its need for more room.
    """

    at: Standing
    around: Surroundings
    known: Known
    room: Room = attrs.field(factory=Room, init=False)

    def forget(self) -> None:
        """Forget everything, for a model that is started in another way."""
        self.room = Room()

    def tries_again(self, reason: str, output: LogRing) -> bool:
        """Learn from a failed start; return whether it is tried once more, with more room.

        Args:
            reason: why it failed, in an operator's words.
            output: the model's last output.
        """
        if self.around.are_placed_by_memory():
            return self.fell_short(reason, output)
        beside = self.around.sleepers()
        if not self.room.start_failed(beside_sleepers=bool(beside)):
            return False
        names = ", ".join(beside)
        text = f"The start failed while others slept; llamadoze tries again without them: {names}"
        self.at.tell("warning", text, reason=reason, sleepers=beside)
        return True

    def fell_short(self, reason: str, output: LogRing) -> bool:
        """Learn from a failed start or wake; return whether it lacked memory and gets a new try.

        The next try gets all there is. Nothing is learned unless models are placed by memory.
        """
        if not self.around.are_placed_by_memory():
            return False
        is_short = any(map(SHORT_OF_MEMORY.search, [reason, *output.tail(LINES_LOOKED_AT)]))
        had_all = self.room.must_be_made
        if not self.room.start_failed(beside_sleepers=is_short):
            self.known.footprint = self.known.footprint.was_enough()
            if is_short and had_all:
                self.at.tell("error", LACKS_WITH_ALL, reason=reason)
            return False
        self.known.footprint = self.known.footprint.was_too_little()
        text = (
            "There was too little memory for the model; llamadoze tries once more, with all there "
            "is"
        )
        self.at.tell("warning", text, reason=reason)
        return True

    async def make_room(self, unwanted: Callable[[], Awaitable[str | None]]) -> str | None:
        """Stop the models that sleep beside this one, if it needs that; return why that failed.

        Args:
            unwanted: returns when the model is told to end.
        """
        if self.around.are_placed_by_memory() or not self.room.must_be_made:
            return None
        return await race(self.around.clear, unwanted)

    def was_good(self) -> None:
        """Learn from a start or a wake that succeeded."""
        self.known.footprint = self.known.footprint.was_enough()
        self.room.start_was_good()
        if self.around.are_placed_by_memory():
            self.forget()  # its footprint tells what it needs
