"""What the journal hears of decisions: who makes room for whom, and why."""

from __future__ import annotations

import attrs
import trio
from trio.testing import MockClock

from supervisor.scheduling.decisions import Decision
from supervisor.states.causes import Cause, Ruling, Why
from supervisor.states.journal import Journal
from supervisor.states.table import Wish
from tests.fakes import FakePrograms
from tests.supervisor.helpers import model, supervise, two

SLEEPS = {"cmdSleep": "sleep 1", "cmdWake": "sleep 1"}


@attrs.define(eq=False)
class Heard(Journal):
    """Keeps the last form of each ruling, and the last cause for each model."""

    rulings: dict[int, Ruling] = attrs.field(factory=dict, init=False)
    causes: dict[str, Cause] = attrs.field(factory=dict, init=False)

    def ruled(self, ruling: Ruling) -> None:
        self.rulings[ruling.number] = ruling

    def asked(self, model: str, wish: Wish, cause: Cause) -> None:
        self.causes[model] = cause


async def test_a_model_whose_requests_are_cut_makes_room(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The decision names the model, and the cause names both the limit and the other model."""
    heard = Heard()
    models = two(model("serve a", drainTimeout=30), model("serve b"))

    async def use_a() -> None:
        async with supervisor.lease("a"):
            await trio.sleep_forever()

    async with supervise(models, journal=heard) as supervisor, trio.open_nursery() as nursery:
        nursery.start_soon(use_a)
        await trio.sleep(1)
        async with supervisor.lease("b"):
            cause = heard.causes["a"]
            nursery.cancel_scope.cancel()
    assert (cause.why, cause.model) == (Why.DRAIN, "b")
    assert cause.text == "its requests delayed others for 30s (drainTimeout)"
    ruling = heard.rulings[cause.ruling]
    assert ruling.model == "b"
    assert [(one.model, one.because) for one in ruling.victims] == [("a", cause.text)]


async def test_a_sleeper_that_must_move_makes_room_for_nobody(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The cause tells that the model starts elsewhere; the decision is the model's own."""
    heard = Heard()
    async with supervise(two(model("serve a", **SLEEPS), model("serve b"))) as supervisor:
        async with supervisor.lease("a"):
            pass
        rulings = attrs.evolve(supervisor._scheduler.rulings, journal=heard)
        moves = Decision(wishes={"a": Wish.STOP})
        cause = rulings.why(supervisor.servers["a"], Wish.STOP, moves, "memory")
    assert (cause.why, cause.model) == (Why.ITSELF, "")
    assert "elsewhere" in cause.text
    ruling = heard.rulings[cause.ruling]
    assert (ruling.model, ruling.victims) == ("a", ())
