"""A picture of which model had memory when, as SVG: a row for each model, a colour for each state.

Owns the drawing. The simulation owns the events.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from xml.sax.saxutils import escape

from supervisor.playing.outcome import Outcome, Span
from supervisor.states.table import State

COLOURS = {
    State.READY: "#2e7d32",
    State.QUEUED: "#7b1fa2",
    State.STARTING: "#c62828",
    State.WAKING: "#ef6c00",
    State.FALLING_ASLEEP: "#90a4ae",
    State.STOPPING: "#546e7a",
}
LEFT, WIDTH, ROW, TOP = 180, 1200, 18, 46
TICKS = 10


def draw(outcome: Outcome, most: int) -> str:
    """Return the picture. If there are too many models, show those that had memory longest.

    Args:
        outcome: the outcome of a simulation.
        most: the largest number of rows.
    """
    held: dict[str, float] = defaultdict(float)
    for span in outcome.spans:
        held[span.model] += span.end - span.begin
    rows = sorted(sorted(held, key=lambda name: -held[name])[:most])
    height = TOP + ROW * len(rows) + 30
    scale = WIDTH / (outcome.end or 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 20}" height="{height}" '
        'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
        *_legend(),
        *_axis(outcome.end, scale, height),
    ]
    for place, name in enumerate(rows):
        top = TOP + ROW * place
        parts.append(f'<text x="6" y="{top + 12}">{escape(name[:28])}</text>')
        own = (span for span in outcome.spans if span.model == name)
        for span in _visible(own, scale):
            left, wide = LEFT + span.begin * scale, max((span.end - span.begin) * scale, 0.3)
            parts.append(
                f'<rect x="{left:.1f}" y="{top + 2}" width="{wide:.1f}" height="{ROW - 4}" '
                f'fill="{COLOURS[span.state]}"/>'
            )
    return "\n".join([*parts, "</svg>", ""])


def _visible(spans: Iterable[Span], scale: float) -> Iterator[Span]:
    """Leave out spans that would end within half a pixel of the span before."""
    drawn_to = -1.0
    for span in spans:
        if span.end * scale > drawn_to + 0.5:
            drawn_to = span.end * scale
            yield span


def _legend() -> Iterator[str]:
    for place, (state, colour) in enumerate(COLOURS.items()):
        left = LEFT + 110 * place
        yield f'<rect x="{left}" y="8" width="12" height="12" fill="{colour}"/>'
        yield f'<text x="{left + 17}" y="18">{state.value}</text>'


def _axis(end: float, scale: float, height: int) -> Iterator[str]:
    for tick in range(TICKS + 1):
        seconds = end * tick / TICKS
        left = LEFT + seconds * scale
        yield (
            f'<line x1="{left:.1f}" y1="{TOP - 8}" x2="{left:.1f}" y2="{height - 24}" '
            'stroke="#e0e0e0"/>'
        )
        yield f'<text x="{left:.1f}" y="{height - 8}" text-anchor="middle">{seconds:,.0f} s</text>'
