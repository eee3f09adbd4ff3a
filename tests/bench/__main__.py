"""Measures what llamadoze costs on this machine now: ``make bench``, in less than eight minutes.

Prints tables and writes all measurements to a file. This is no test: a missed goal does not fail,
because a noisy machine gives other numbers.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench import decisions, forwarding, instructions, machine, starts, swaps
from tests.bench.figures import Figure
from tests.bench.peers import HELP, Peer, peers_in
from tests.bench.report import Report

SWAPS = "swaps"
PARTS: dict[str, Callable[..., list[Figure]]] = {
    "instructions": instructions.measure,
    "starts": starts.measure,
    SWAPS: swaps.measure,
    "decisions": decisions.measure,
}
FORWARDING = "forwarding"


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("bench.json"), help="default: bench.json")
    parser.add_argument("--peer", type=peers, default=[], help=f"{HELP}; several with ; between")
    parser.add_argument("--only", action="append", choices=[FORWARDING, *PARTS], help="a part")
    parser.add_argument("--rounds", type=int, help="of forwarding; default: 3; 1 with --quick")
    parser.add_argument("--quick", action="store_true", help="a look whether all of it works")
    return parser.parse_args(arguments)


def peers(text: str) -> list[Peer]:
    """Read peers from the text of an option.

    Raises:
        argparse.ArgumentTypeError: they cannot be read.
    """
    try:
        return peers_in(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def measured(options: argparse.Namespace) -> Report:
    """Measure the chosen parts, one after the other."""
    report = Report()
    print(report.where, flush=True)
    for part in options.only or [FORWARDING, *PARTS]:
        print(f"{part} ...", file=sys.stderr)
        began = time.monotonic()
        if part == FORWARDING:
            report.forwarding = forward(options)
        else:
            more = {"peers": options.peer} if part == SWAPS else {}
            report.parts[part] = PARTS[part](options.quick, **more)
        report.seconds[part] = time.monotonic() - began
    return report


def forward(options: argparse.Namespace) -> forwarding.Forwarding:
    rounds = options.rounds or (1 if options.quick else 3)
    return forwarding.measure(options.peer, rounds, 0.5 if options.quick else 2, options.quick)


def main(arguments: Sequence[str] | None = None) -> None:
    options = options_of(arguments)
    machine.allow_compiled()
    report = measured(options)
    print(*report.tables(), sep="\n\n")
    report.save(options.json)
    print(f"\nAll of it is in {options.json}.")


if __name__ == "__main__":
    main()
