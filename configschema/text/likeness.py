"""The name that an unknown name was probably meant to be.

Owns how similar two names must be. `problems` has the form in which a report shows the guess.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import groupby

USUAL = 0.6
LONGEST = 100  # characters that are compared, which takes quadratic time


def nearest(name: str, known: Iterable[str], likeness: float = USUAL) -> str | None:
    """Return the known name that is most similar to a name; None if no name is similar enough.

    Case and underscores do not count. A slip of the fingers is similar enough in a name of any
    length.

    Args:
        name: the unknown name.
        known: the names that exist.
        likeness: how similar other names must be, from 0 to 1.
    """
    plain = {_plain(one): one for one in known}
    wanted = _plain(name[:LONGEST])
    slip = next(_slips(wanted, plain), None)
    found = _like(wanted, plain, likeness) if slip is None else slip
    return None if found is None else plain[found]


def _plain(name: str) -> str:
    return name.lower().replace("_", "")


def _slips(wanted: str, known: Collection[str]) -> Iterator[str]:
    """Yield the known names that differ by two swapped neighbours, or by letters typed twice."""
    yield from (one for one in (wanted, *_swaps(wanted)) if one in known)
    once = _each_once(wanted)
    yield from (one for one in known if _each_once(one) == once)


def _swaps(name: str) -> Iterator[str]:
    """Yield the name with each two neighbouring letters swapped."""
    for place in range(len(name) - 1):
        yield f"{name[:place]}{name[place + 1]}{name[place]}{name[place + 2 :]}"


def _each_once(name: str) -> str:
    """Return the name with each run of the same letter as one letter."""
    return "".join(letter for letter, _ in groupby(name))


def _like(wanted: str, known: Collection[str], likeness: float) -> str | None:
    try:
        from difflib import get_close_matches  # slow to import, and only errors need it
    except ImportError:  # Python's own files are gone
        return None
    return next(iter(get_close_matches(wanted, known, 1, likeness)), None)
