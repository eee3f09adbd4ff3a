"""A plan for a cluster: ``python -m tests.bench.clusterplan FOLDER [ALLOCATIONS]``.

Writes a configuration of 5,000 models in some allocations and a day of requests, for
``llamadoze simulate``. A few models get most requests, and most models get few (Zipf's law). The
popular models are spread over the allocations.
"""

from __future__ import annotations

import random
import sys
from bisect import bisect
from itertools import accumulate
from pathlib import Path

MODELS = 5000
REQUESTS = 200_000  # in a day
DAY = 86_400
SKEW = 1.0  # of Zipf's law
SERVE = 8.0  # seconds that a request takes, on average
HEAD = """\
clusters:
  hpc: {partition: gpu, queueTimeout: 3600}
allocations:
"""
ALLOCATION = "  g{}: {{gres: 'gpu:1', mem: 256G, time: 2-00:00:00, idle: 600}}\n"
MODEL = (
    "  m{}: {{cmd: 'vllm serve m{} --enable-sleep-mode --port ${{PORT}}', sleep: vllm, "
    "env: [VLLM_SERVER_DEV_MODE=1], in: g{}, ttl: 0, memory: {{gpu: 30, host: 20}}}}\n"
)


def configuration(allocations: int) -> str:
    """Return the file; models go to allocations back and forth, to spread the popular ones."""
    parts = [HEAD, *(ALLOCATION.format(number) for number in range(allocations)), "models:\n"]
    for number in range(MODELS):
        lap, place = divmod(number, allocations)
        home = place if lap % 2 == 0 else allocations - 1 - place
        parts.append(MODEL.format(number, number, home))
    return "".join(parts)


def trace(seed: int = 1) -> str:
    """Return a day of requests, with more of them by day than by night."""
    chance = random.Random(seed)
    weights = [*accumulate(1 / (rank + 1) ** SKEW for rank in range(MODELS))]
    rows: list[tuple[float, int, float]] = []
    while len(rows) < REQUESTS:
        at = chance.uniform(0, DAY)
        hour = at / 3600
        if chance.random() < (1.0 if 8 <= hour < 20 else 0.3):
            model = bisect(weights, chance.random() * weights[-1])
            rows.append((at, model, chance.expovariate(1 / SERVE)))
    lines = [f"{at:.1f},m{model},{serve:.2f}" for at, model, serve in sorted(rows)]
    return "\n".join(["seconds,model,serve", *lines, ""])


def main(folder: Path, allocations: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(configuration(allocations))
    (folder / "trace.csv").write_text(trace())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 417)
