"""How llamadoze recognises its own jobs, and the words for them.

Owns the marks in the jobs' comments, and the words for how jobs wait and end. Pure.
"""

from __future__ import annotations

import hashlib
from datetime import datetime

from configschema import Holding
from supervisor.clusters.slurm import Job

A_DAY = 20 * 3600  # seconds after which a time of day alone could mean another day
ENDED = frozenset({"COMPLETING", "COMPLETED"})  # these words give no reason


def mark_of(owner: str, holding: Holding) -> str:
    """Return the mark of an allocation's jobs: their owner, and what was requested."""
    text = repr(holding.asked).encode(errors="surrogatepass")
    return f"{mark_of_owner(owner)}{hashlib.sha256(text).hexdigest()[:16]}"


def mark_of_owner(owner: str) -> str:
    """Return the beginning of the marks of all jobs of a daemon."""
    return f"llamadoze.{owner}."


def queued_told(job: Job, now: float) -> str:
    """Say that a job waits, why, and when it is expected to begin."""
    text = f"job {job.id} waits in Slurm's queue"
    text += f" ({job.reason})" if job.reason else ""
    if job.starts is None:
        return text
    at = datetime.fromtimestamp(job.starts).astimezone()
    day = "" if job.starts - now < A_DAY else f" on {at:%d %B %Y}"
    return f"{text}, expected to start at {at:%H:%M}{day}"


def end_told(job: Job, when: str = "") -> str:
    """Say how a job ended, in Slurm's word; and when, if it did not end while it ran."""
    state = "" if job.state in ENDED else f": {job.state}"
    reason = f" ({job.reason})" if job.reason and job.reason != job.state else ""
    return f"its job {job.id} has ended{when}{state}{reason}"
