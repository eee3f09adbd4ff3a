"""A made-up Slurm for keepers on Trio's own clock: jobs start when a test says so."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from configschema import Config, Holding, parse
from supervisor.clusters import slurm
from supervisor.clusters.keeper import Keeper
from supervisor.clusters.keepers import Clusters, open_clusters
from supervisor.clusters.slurm import Job, NotAnswered, Refused, Step

BEGAN = 1_000_000.0  # seconds since 1970 when Trio's clock is 0


@attrs.define(eq=False)
class FakeSlurm:
    """The controller.

    Attributes:
        jobs: the jobs by number, in any state.
        steps: the steps that run.
        submitted: the marks of the jobs that were submitted.
        cancelled: what was cancelled, with the signal.
        silent: whether the controller does not answer.
        refusal: why the controller takes no job.
        starts_in: seconds until a submitted job runs; None waits for the test.
        looks: how often all jobs were listed.
        lasts: seconds that jobs last.
        stuck: steps that end only with their jobs.
        deaf: how many more times the controller does not answer a scancel.
    """

    jobs: dict[str, Job] = attrs.field(factory=dict)
    steps: list[Step] = attrs.field(factory=list)
    submitted: list[str] = attrs.field(factory=list)
    cancelled: list[tuple[str, str]] = attrs.field(factory=list)
    silent: bool = False
    refusal: str = ""
    starts_in: float | None = 1.0
    looks: int = 0
    lasts: float | None = None
    stuck: set[str] = attrs.field(factory=set)
    deaf: int = 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(slurm, "jobs", self._jobs)
        monkeypatch.setattr(slurm, "steps", self._steps)
        monkeypatch.setattr(slurm, "submit", self._submit)
        monkeypatch.setattr(slurm, "cancel", self._cancel)
        monkeypatch.setattr(time, "time", lambda: BEGAN + trio.current_time())

    async def _answer(self) -> None:
        await trio.sleep(0.01)
        if self.silent:
            raise NotAnswered("squeue: Unable to contact slurm controller")

    async def _jobs(self) -> list[Job]:
        self.looks += 1
        await self._answer()
        now = time.time()
        for number, job in self.jobs.items():
            if job.state == "PENDING" and job.starts is not None and job.starts <= now:
                self.run(number)
        return list(self.jobs.values())

    async def _steps(self) -> list[Step]:
        await self._answer()
        return list(self.steps)

    async def _submit(self, holding: Holding, mark: str) -> str:
        await self._answer()
        if self.refusal:
            raise Refused(self.refusal)
        number = f"{len(self.jobs) + 1}"
        starts = None if self.starts_in is None else time.time() + self.starts_in
        self.jobs[number] = Job(
            id=number, state="PENDING", comment=mark, starts=starts, reason="Resources"
        )
        self.submitted.append(mark)
        return number

    async def _cancel(self, ids: Iterable[str], signal: str = "") -> None:
        found = list(ids)
        if not found:
            return
        await self._answer()
        if self.deaf:
            self.deaf -= 1
            raise NotAnswered("scancel: Unable to contact slurm controller")
        for one in found:
            self.cancelled.append((one, signal))
            if one in self.jobs:
                self.end(one, "CANCELLED")
            over = {one} - self.stuck
            self.steps = [
                step
                for step in self.steps
                if step.id not in over and step.id.partition(".")[0] not in over
            ]

    def run(self, number: str) -> None:
        """Let a job run."""
        ends = None if self.lasts is None else time.time() + self.lasts
        self.jobs[number] = attrs.evolve(
            self.jobs[number], state="RUNNING", node="n1", starts=time.time(), ends=ends, reason=""
        )

    def end(self, number: str, state: str) -> None:
        """Let a job end."""
        self.jobs[number] = attrs.evolve(self.jobs[number], state=state)

    @property
    def live(self) -> list[str]:
        return [number for number, job in self.jobs.items() if job.is_live]


def config_of(idle: int = 100, timeout: int = 600, **more: object) -> Config:
    """Return a configuration of two models in one allocation, and one with its own."""
    extra = "".join(f", {key}: {value}" for key, value in more.items())
    return parse(
        f"clusters: {{hpc: {{queueTimeout: {timeout}}}}}\n"
        f"allocations: {{shared: {{gres: 'gpu:1', idle: {idle}{extra}}}}}\n"
        "models: {a: {cmd: x, in: shared}, b: {cmd: x, in: shared}, "
        "own: {cmd: x, in: {gres: 'gpu:1', idle: 0}}}"
    ).config


@asynccontextmanager
async def keeping(config: Config) -> AsyncIterator[tuple[Keeper, Clusters]]:
    """Yield the keeper of the only cluster, and all clusters."""
    async with open_clusters("us") as clusters:
        clusters.change(config)
        yield clusters.keeper, clusters


def holding_of(config: Config, model: str = "a") -> Holding:
    """Return what is held for a model."""
    holding = config.models[model].holding
    assert holding is not None
    return holding
