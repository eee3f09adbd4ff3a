"""What memory there is for models."""

from __future__ import annotations

from supervisor.room.space import HOST, Space

SPACE = Space(whole={"g1": 100, "g0": 50, HOST: 10}, others={"g1": 30}, titles={"g0": "GPU 0"})


def test_what_others_hold_is_not_there_for_models() -> None:
    """However much others hold, no device has less than nothing."""
    assert SPACE.free_for_models == {"g1": 70, "g0": 50, HOST: 10}
    assert Space(whole={HOST: 10}, others={HOST: 11}).free_for_models == {HOST: 0}


def test_the_host_is_no_gpu() -> None:
    """The GPUs keep their order, in which llamadoze tries them."""
    assert SPACE.gpus == ["g1", "g0"]
    assert Space(whole={HOST: 1}).gpus == []


def test_a_device_is_called_as_operators_call_it() -> None:
    """A device without a title keeps its name."""
    assert [SPACE.title(one) for one in ("g0", "g1", HOST)] == ["GPU 0", "g1", "the host"]
