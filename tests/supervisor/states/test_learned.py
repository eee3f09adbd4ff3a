"""What was learned of a model, as data: any data can be read, and nonsense is left out."""

from __future__ import annotations

import json
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.states.footprint import Footprint
from supervisor.states.habits import REMEMBERED, Habits
from supervisor.states.learned import NOTHING_LEARNED, Learned, learned_in
from supervisor.states.snapshot import Costs

WHOLE = Learned(
    Footprint(
        gpus=(5, 0, 7),
        host=3,
        gpus_asleep=(1,),
        host_asleep=0,
        growth=2,
        lives=4,
        peak_gpus=(),
        peak_host=9,
    ),
    Costs(start=3.5, wake=0.25, counts={"start": 2, "wake": 1}),
    Habits((1.5, 2.0)),
)
plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(
                ["footprint", "costs", "gaps", "gpus", "host", "lives", "start", "counts"]
            ),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=20,
)


@pytest.mark.parametrize("learned", [WHOLE, NOTHING_LEARNED])
def test_what_is_written_is_read_again(learned: Learned) -> None:
    """What was learned passes through the text of a file unchanged."""
    assert learned_in(json.loads(json.dumps(learned.as_data()))) == learned


def test_a_start_that_lacked_memory_is_forgotten() -> None:
    """What ran beside it then no longer runs; what the model was assumed to need is kept."""
    short = Learned(Footprint(gpus=(5,), lives=1).was_too_little())
    kept = learned_in(json.loads(json.dumps(short.as_data()))).footprint
    assert not kept.is_short
    assert kept.gpus == short.footprint.gpus


@pytest.mark.parametrize(
    "nonsense", [None, 3, "x", [], [1], {"footprint": 3, "costs": [], "gaps": 1}]
)
def test_nonsense_teaches_nothing(nonsense: object) -> None:
    """Data that is no record, whatever it is, leaves nothing learned."""
    assert learned_in(nonsense) == NOTHING_LEARNED


def test_what_is_wrong_in_a_part_leaves_the_rest() -> None:
    """Amounts are whole numbers and not negative, and seconds are finite."""
    data = {
        "footprint": {"gpus": [1, -2], "host": 4, "lives": True, "growth": 1.5, "peak_gpus": ["1"]},
        "costs": {"start": nan, "stop": inf, "sleep": -1, "wake": 2, "counts": {"wake": "x"}},
        "gaps": [1, None, -3, inf, 2],
    }
    found = learned_in(data)
    assert found.footprint == Footprint(host=4)
    assert found.costs == Costs(wake=2.0, counts={"wake": 1})
    assert found.habits == Habits((1.0, 2.0))


def test_no_more_is_read_than_would_be_kept() -> None:
    """An overlong file does not stay in memory."""
    data = {"gaps": list(range(1000)), "footprint": {"gpus": [1] * 1000}}
    found = learned_in(data)
    assert len(found.habits.gaps) == REMEMBERED
    assert found.footprint.gpus is None


@given(data=plain)
def test_any_data_is_read_without_an_error_and_can_be_written(data: object) -> None:
    """What was read of it is the same when it is written and read again."""
    found = learned_in(data)
    assert learned_in(json.loads(json.dumps(found.as_data()))) == found
