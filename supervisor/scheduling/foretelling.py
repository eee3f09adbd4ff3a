"""Tells when models will be ready, from the present state of everything.

Owns how long an answer is reused, and behind how many models there is no forecast. `forecast` makes
the estimate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import attrs
import trio

from supervisor.model.server import ModelServer
from supervisor.scheduling.apart import Rooms
from supervisor.scheduling.forecast import NOW, Forecast, forecast
from supervisor.scheduling.outlook import Outlook, Rules

FORETOLD_FOR = 0.25  # seconds for which a forecast is reused
MOST_BEFORE, MOST_BEFORE_BY_MEMORY = 20, 5  # models that go first; behind more there is no forecast


@attrs.define(eq=False)
class Foretelling:
    """The last forecasts, and how to make new ones.

    Attributes:
        servers: all model servers by id.
        rooms: the memory that there is.
    """

    servers: Mapping[str, ModelServer]
    rooms: Rooms
    _told: dict[str, tuple[object, float, Forecast | None]] = attrs.field(factory=dict, init=False)

    def of(
        self,
        model: str,
        demands: Callable[[], Iterable[str]],
        closed: frozenset[str],
        rules: Rules,
    ) -> Forecast | None:
        """Return when a model would be ready for a new request; None if that is not known.

        Args:
            model: its id.
            demands: returns the models that are waited for, in order.
            closed: models that serve, but accept no newcomers.
            rules: the operator's rules about the order.
        """
        if self.servers[model].is_serving and model not in closed:
            return NOW
        now, at = trio.current_time(), self.servers[model].at
        stands = at.state, at.since
        known = self._told.get(model)
        if known is None or known[0] != stands or now - known[1] > FORETOLD_FOR:
            told = self._foretell(model, tuple(demands()), closed, rules)
            known = self._told[model] = stands, now, told
        return known[2]

    def _foretell(
        self, model: str, order: tuple[str, ...], closed: frozenset[str], rules: Rules
    ) -> Forecast | None:
        before = order.index(model) if model in order else len(order)
        if before > (MOST_BEFORE_BY_MEMORY if rules.memory else MOST_BEFORE):
            return None
        outlook = Outlook.of(self.servers, {model, *order}, rules, self.rooms)
        known = [self.servers[name] for name in outlook.models]
        return forecast(
            *(model, outlook.models, order, outlook.make_room, trio.current_time()),
            held_back={one.model.id: one.held_back for one in known},
            shares={one.model.id: one.at.share or 0.0 for one in known},
            closed=closed,
        )
