"""Makes spans and decisions from the supervisor's journal.

Owns what is noted about each change of state: its cause, its steps, and what was proved.
`decisionrows` owns what a decision tells. `spans` owns what is kept, and for how long.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import attrs
import structlog
import trio

from proxy.forwarding.inflight import Call
from proxy.history.decisionrows import note_leaving, row_of, rule_again
from proxy.history.spans import Row, Timeline
from supervisor import State, Supervisor
from supervisor.model.server import ModelServer
from supervisor.sleep.proof import History
from supervisor.states.causes import Cause, Ruling, Why
from supervisor.states.journal import Journal
from supervisor.states.table import IN_MOTION, Event, Wish

log: structlog.stdlib.BoundLogger = structlog.get_logger("proxy")

Given = ParamSpec("Given")
BY_WISH = {
    Event.START: {Wish.SERVE},
    Event.WAKE: {Wish.SERVE},
    Event.SLEEP: {Wish.SLEEP, Wish.DRAIN},
    Event.STOP: {Wish.STOP, Wish.DRAIN},
}
"""The events that can follow from a wish. Their cause is the cause of that wish."""
OF_ITSELF = Cause(why=Why.ITSELF)
OVER = (Event.WOKE, Event.BECAME_READY, Event.STOP)
"""The events that end a start or wake: the model serves, or it does not."""
TOLD = ("text", "model", "client", "key")
MOST_OPEN = 1000  # decisions without an outcome yet
LEAST_WAIT = 0.001  # seconds; a shorter wait does not count


def harmless(note: Callable[Given, None]) -> Callable[Given, None]:
    """Log an internal error of a method instead of raising it. Then only a row is missing."""

    @wraps(note)
    def noted(*arguments: Given.args, **more: Given.kwargs) -> None:
        try:
            note(*arguments, **more)
        except Exception:  # the task of a model calls this, and must go on
            log.exception("Internal error; a part of the timeline is missing")

    return noted


@attrs.define(eq=False)
class Recorder(Journal):
    """Records what happens to the models. The supervisor uses it as a journal.

    Attributes:
        supervisor: the owner of the models.
        timeline: gets the rows.
    """

    supervisor: Supervisor
    timeline: Timeline
    _open: dict[str, Row] = attrs.field(factory=dict, init=False)
    _asked: dict[str, tuple[Wish, Cause]] = attrs.field(factory=dict, init=False)
    _rulings: dict[int, Row] = attrs.field(factory=dict, init=False)
    _failures: dict[str, str] = attrs.field(factory=dict, init=False)
    _stopped_in: dict[str, Row] = attrs.field(factory=dict, init=False)
    _askers: dict[str, Row] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        """Begin with the states of the models: some may already have been taken over."""
        for server in self.supervisor.servers.values():
            if server.at.state is not State.STOPPED:
                began = self._told(Cause(why=Why.ITSELF, text=THERE_ALREADY))
                self._begin(server, server.at.state, began, _calendar(server.at.since))

    @harmless
    def asked(self, model: str, wish: Wish, cause: Cause) -> None:
        """Remember the cause of a wish until the model takes the step."""
        self._asked[model] = wish, cause

    @harmless
    def failed(self, model: str, state: State, reason: str) -> None:
        """Remember why a step failed, because another step follows from it."""
        self._failures[model] = reason

    @harmless
    def ruled(self, ruling: Ruling) -> None:
        """Note a decision, or that one more model must make room for it."""
        decision = self._rulings.get(ruling.number)
        asker = ruling.asker
        self._askers[ruling.model] = {
            "why": asker.why.value,
            "request": asker.request,
        } | asker.facts
        if decision is None:
            decision = self.timeline.add("decisions", {"at": time.time(), **row_of(ruling)})
            self._rulings[ruling.number] = decision
            while len(self._rulings) > MOST_OPEN:  # for some, nobody waited until their end
                self._rulings.pop(next(iter(self._rulings)))
            return
        rule_again(decision, ruling)
        self.timeline.changed("decisions", decision)

    @harmless
    def stepped(self, model: str, event: Event, state: State, took: float) -> None:
        """End a span and begin the next."""
        server = self.supervisor.servers.get(model)
        if server is None:
            return
        now, before = time.time(), self._open.pop(model, None)
        cause = self._cause(event, state, server, before)
        if before is not None:
            if state is State.FAILED and not before["cause"].get("text"):
                before["cause"]["text"] = cause.get("text", "")
            self._end(server, before, event, took)
        if state is State.FAILED:
            self._note_failure(server)
        if state is not State.STOPPED:
            self._begin(server, state, cause, now)
        self._failures.pop(model, None)

    def _cause(self, event: Event, state: State, server: ModelServer, before: Row | None) -> Row:
        """Return the cause of a step: its wish, a failure, or the cause of the step before."""
        failure = self._failures.get(server.model.id)
        if state is State.FAILED:
            return self._failure(server.model.id, server.at.failure or failure or "")
        if event in BY_WISH:
            wish, cause = self._asked.get(server.model.id, (None, OF_ITSELF))
            if failure is None and wish in BY_WISH[event]:
                return self._told(cause)
            return self._failure(server.model.id, failure or "")
        return dict(before["cause"]) if before else self._told(OF_ITSELF)

    def _failure(self, model: str, reason: str) -> Row:
        """Return the cause of a failure, with the decision that the model followed."""
        return self._told(Cause(why=Why.FAILURE, text=reason, ruling=self._last_ruling(model)))

    def _told(self, cause: Cause) -> Row:
        row: Row = {"why": cause.why.value}
        row |= {name: getattr(cause, name) for name in TOLD if getattr(cause, name)}
        # Without a ruling of its own, it makes room for the second try of a start.
        ruling = cause.ruling or self._last_ruling(cause.model)
        if decision := self._rulings.get(ruling):
            row["decision"] = decision["id"]
        return row

    def _last_ruling(self, model: str) -> int:
        _, asked = self._asked.get(model, (None, OF_ITSELF))
        return asked.ruling

    def _begin(self, server: ModelServer, state: State, cause: Row, now: float) -> None:
        span = {
            "model": server.model.id,
            "state": state.value,
            "begin": now,
            "end": None,
            "cause": cause,
            "gpus": list(server.known.gpus),
        }
        self._open[server.model.id] = self.timeline.add("spans", span)

    def _end(self, server: ModelServer, span: Row, event: Event, took: float) -> None:
        span["end"] = max(time.time(), span["begin"])
        if server.at.taken:
            span["steps"] = [{"name": name, "took": round(s, 3)} for name, s in server.at.taken]
        if event is Event.SLEPT:
            span["proof"] = _proof_of_sleep(server)
        elif event is Event.WOKE:
            span["proof"] = _proof_of_wake(server)
            span["saved"] = round(max(0.0, (server.at.costs.start or 0.0) - took), 3)
        if reason := self._failures.get(server.model.id):
            span["failure"] = reason
        if event is Event.STOP:
            self._stopped_in[server.model.id] = span
        self.timeline.changed("spans", span)
        self.timeline.keep("spans", span)
        self._note_outcome(server.model.id, span, event, took)

    def _note_failure(self, server: ModelServer) -> None:
        """Note why a start or wake has failed: this is known when the process is gone."""
        span = self._stopped_in.get(server.model.id)
        if span is None or State(span["state"]) not in IN_MOTION or "failure" in span:
            return
        span["failure"] = server.at.failure or ""
        self.timeline.changed("spans", span)
        self.timeline.keep("spans", span)

    def _note_outcome(self, model: str, span: Row, event: Event, took: float) -> None:
        """Note the outcome of a step in the decision that caused it."""
        made = span["cause"].get("decision")
        found = ((n, one) for n, one in self._rulings.items() if made and one["id"] == made)
        number, decision = next(found, (0, None))
        if decision is None:
            return
        outcome = {"took": round(took, 3), "proved": span.get("proof")}
        if decision["model"] != model:
            note_leaving(decision, span, event, outcome)
        elif event in OVER:
            decision |= {**outcome, "ready": None if event is Event.STOP else span["end"]}
            if event is not Event.STOP:  # else a second try may follow
                self._rulings.pop(number)
            self.timeline.keep("decisions", decision)
        self.timeline.changed("decisions", decision)

    def brought_up_for(self, model: str) -> Row | None:
        """Return who asked for the model that is awake, starts or wakes; None if nobody did."""
        span = self._open.get(model)
        if span is None or State(span["state"]) not in IN_MOTION | {State.READY}:
            return None
        return self._askers.get(model) if span["cause"].get("decision") else None

    def end_forgotten(self) -> None:
        """End the spans of removed models: a failed one takes no more steps."""
        for name in self._open.keys() - self.supervisor.servers.keys():
            span = self._open.pop(name)
            span["end"] = max(time.time(), span["begin"])
            self.timeline.changed("spans", span)
            self.timeline.keep("spans", span)

    def close(self) -> None:
        """End all spans: nothing is known of the time after the daemon's end."""
        for span in self._open.values():
            span["end"] = max(time.time(), span["begin"])
            self.timeline.keep("spans", span)
        for kind, row in self.timeline.open_uses():
            self.timeline.keep(kind, row)

    def used(self, call: Call, now: float) -> None:
        """Note when a request waited for its model, and when the model served it."""
        ended = call.timestamp + now - call.began
        if call.waited is None:
            if ended - call.timestamp >= LEAST_WAIT:
                self.timeline.used("waits", call.model, call.timestamp, ended)
            return
        served = call.timestamp + call.waited
        if call.waited >= LEAST_WAIT:
            self.timeline.used("waits", call.model, call.timestamp, served)
        self.timeline.used("busy", call.model, served, ended)


THERE_ALREADY = "it already ran when the daemon started"


def _calendar(then: float) -> float:
    return time.time() - (trio.current_time() - then)


def _proof_of_sleep(server: ModelServer) -> Row:
    known, verify = server.sleeping, server.model.verify
    return {
        "asked": bool(verify.asleep or server.model.recipe.asleep),
        "memory": {
            kind.lower(): {
                "awake": amount.awake,
                "freed": amount.freed,
                "left": amount.left,
                "cycle": known.histories.get(kind, History()).cycles,
                "trend": round(known.histories.get(kind, History()).trend),
                "growth": known.histories.get(kind, History()).growth,
            }
            for kind, amount in known.amounts.items()
        },
    }


def _proof_of_wake(server: ModelServer) -> Row:
    verify, recipe = server.model.verify, server.model.recipe
    canary = recipe.canary if verify.canary is None else verify.canary
    return {"asked": bool(verify.awake or recipe.awake), "token": bool(canary)}
