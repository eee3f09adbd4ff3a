"""Fills the measured passages of the page on performance from the file of ``make bench``.

``python -m tests.bench.page bench.json`` rewrites the text between markers, which are HTML
comments, and changes nothing else. A passage stays as it is if its part was not measured.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tests.bench import traffic_tables
from tests.bench.figures import Figure
from tests.bench.report import WITH_GOALS, Report

PAGE = Path(__file__).parents[2] / "docs/explanation/performance.md"
PASSAGE = re.compile(r"(<!-- measured: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str, report: Report) -> str:
    """Return a page with new measured passages.

    Raises:
        ValueError: a marker names an unknown passage, or the page has no marker.
    """
    if strangers := {name for _, name, _ in PASSAGE.findall(text)} - PASSAGES.keys():
        raise ValueError(f"nothing is measured by the name of {', '.join(sorted(strangers))}")
    if not PASSAGE.search(text):
        raise ValueError("the page has no marker")
    return PASSAGE.sub(lambda found: _made(found, report), text)


def _made(found: re.Match[str], report: Report) -> str:
    made = PASSAGES[found[2]](report)
    return f"{found[1]}\n{made}\n\n{found[3]}" if made else found[0]


def where(report: Report) -> str:
    took = sum(report.seconds.values()) / 60
    return f"Measured in {took:.1f} minutes on {report.where}."


def goals(report: Report) -> str:
    """Return the table of all goals, or nothing if a part is missing, so that no goal is lost."""
    if not report.forwarding or not report.parts.keys() >= {*WITH_GOALS}:
        return ""
    return markdown(report.goals())


def forwarding(report: Report) -> str:
    if not report.forwarding:
        return ""
    tables = traffic_tables.tables(report.forwarding.results)
    return "\n".join(["```", "\n\n".join(tables), "```"])


def part(name: str) -> Callable[[Report], str]:
    """Return a function that makes the table of a part."""
    return lambda report: markdown(report.parts[name]) if name in report.parts else ""


def markdown(figures: Iterable[Figure]) -> str:
    """Return figures as a table in Markdown; without goals there is no column for them."""
    rows = [figure.row() for figure in figures]
    width = 4 if any(row[2] for row in rows) else 2
    heading = ["what", "measured", "wanted", ""][:width]
    lines = [heading, ["---"] * width, *(row[:width] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


PASSAGES: dict[str, Callable[[Report], str]] = {
    "where": where,
    "goals": goals,
    "forwarding": forwarding,
    **{name: part(name) for name in ("instructions", "starts", "swaps", "decisions")},
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.page", description=__doc__)
    parser.add_argument("file", type=Path, help="what make bench has written: bench.json")
    parser.add_argument(
        "--page", type=Path, default=PAGE, help="default: docs/explanation/performance.md"
    )
    options = parser.parse_args(arguments)
    report = Report.read(json.loads(options.file.read_text()))
    options.page.write_text(filled(options.page.read_text(), report))


if __name__ == "__main__":
    main()
