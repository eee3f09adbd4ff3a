"""Whether a model needs more room than it had: learned from starts and wakes that failed.

Owns what was learned. Who sleeps beside it, and how they are stopped, is for its surroundings; who
makes room by memory, for the scheduler.
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

LINES_LOOKED_AT = 50  # of its output, for what it says of memory
SHORT_OF_MEMORY = re.compile(
    r"out of memory|OutOfMemory|OUT_OF_MEMORY|bad_alloc|cannot allocate memory|"
    r"(?:failed|unable|not able) to allocate|alloc\w* failed|(?:not enough|insufficient) memory|"
    r"no available memory for the cache|free memory on device|SIGKILL",
    re.IGNORECASE,
)
"""What servers say, or the kernel does, where memory is missing: CUDA, ROCm, Vulkan, llama.cpp,
vLLM ("Free memory on device ... is less than desired GPU memory utilization"), the C++ runtime."""
LACKS_WITH_ALL = (
    "The model lacked memory with all there is, too. Let the model take less (a shorter context, "
    "fewer layers on the GPU: cmd), or give it more GPUs (gpus)"
)


class Need(Enum):
    """What is known of a model."""

    UNKNOWN = auto()
    TRIED = auto()  # the start that goes on has the room, after one that failed without
    KNOWN = auto()  # a start was good with the room, and was not without
    NONE = auto()  # a start failed with the room, too


@attrs.define(eq=False)
class Room:
    """The need of one model for more room than what is free."""

    need: Need = attrs.field(default=Need.UNKNOWN, init=False)

    @property
    def must_be_made(self) -> bool:
        """Whether the next start must have it."""
        return self.need in (Need.TRIED, Need.KNOWN)

    def start_failed(self, *, beside_sleepers: bool) -> bool:
        """Learn from a start that failed; return whether it is worth another try, with the room.

        Args:
            beside_sleepers: whether that, or a lack of memory, can have been the reason.
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


@attrs.define(eq=False)
class Crowding:
    """What is done about too little room for one model.

    Attributes:
        at: where the model stands.
        around: the other models.
        known: the memory that it takes.
        room: its need for more.
    """

    at: Standing
    around: Surroundings
    known: Known
    room: Room = attrs.field(factory=Room, init=False)

    def forget(self) -> None:
        """Know nothing of a model that is started in another way."""
        self.room = Room()

    def tries_again(self, reason: str, output: LogRing) -> bool:
        """Learn from a start that failed; return whether it is tried once more, with more room.

        Args:
            reason: in an operator's words.
            output: what the model has said last.
        """
        if self.around.are_placed_by_memory():
            return self.fell_short(reason, output)
        beside = self.around.sleepers()
        if not self.room.start_failed(beside_sleepers=bool(beside)):
            return False
        names = ", ".join(beside)
        text = f"The start failed while others slept; starting again without them: {names}"
        self.at.tell("warning", text, reason=reason, sleepers=beside)
        return True

    def fell_short(self, reason: str, output: LogRing) -> bool:
        """Learn from a start or a wake that failed; return whether it was for memory, and is tried
        once more with all there is. The others are placed by memory, or nothing is learned."""
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
        text = "There was too little memory for the model; trying once more, with all there is"
        self.at.tell("warning", text, reason=reason)
        return True

    async def make_room(self, unwanted: Callable[[], Awaitable[str | None]]) -> str | None:
        """Stop who sleeps beside the model, if it is known to need that; return why it is not made.

        Args:
            unwanted: returns when the model is told to end.
        """
        if self.around.are_placed_by_memory() or not self.room.must_be_made:
            return None
        return await race(self.around.clear, unwanted)

    def was_good(self) -> None:
        """Learn from a start or a wake that was good."""
        self.known.footprint = self.known.footprint.was_enough()
        self.room.start_was_good()
        if self.around.are_placed_by_memory():
            self.forget()  # what it needs is told by its footprint
