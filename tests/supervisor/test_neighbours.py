"""What a model has to do with other models: which GPUs they share, and which are watched."""

from __future__ import annotations

import pytest
import trio
import yaml
from trio.testing import MockClock

from configschema import parse
from supervisor import State
from supervisor.upkeep.neighbours import gpus_of, is_watched, meet
from tests.fakes import FakePrograms
from tests.supervisor.helpers import model, parse_models, supervise
from tests.supervisor.model.test_room import supervising
from tests.supervisor.sleep.test_sleep_and_wake import state, use


@pytest.mark.parametrize(
    ("keys", "gpus"),
    [
        ({}, None),
        ({"env": ["CUDA_VISIBLE_DEVICES=1"]}, {"1"}),
        ({"env": ["A=1", "HIP_VISIBLE_DEVICES=0,2"]}, {"0", "2"}),
        ({"env": ["CUDA_VISIBLE_DEVICES="]}, None),
        ({"env": ["NVIDIA_VISIBLE_DEVICES=all"]}, None),
        ({"env": ["XCUDA_VISIBLE_DEVICES=1"]}, None),
        ({"cmd": "env CUDA_VISIBLE_DEVICES=3 serve"}, {"3"}),
        ({"cmd": "docker run --gpus device=1 image"}, {"1"}),
        ({"cmd": "docker run --gpus '\"device=0,1\"' image"}, {"0", "1"}),
        ({"cmd": "docker run --gpus=device=GPU-ab:1.2 image"}, {"GPU-ab:1.2"}),
        ({"cmd": "docker run --gpus all image"}, None),
        ({"cmd": "docker run -e CUDA_VISIBLE_DEVICES=2 image"}, {"2"}),
    ],
)
def test_the_gpus_that_a_file_names(keys: dict[str, object], gpus: set[str] | None) -> None:
    """The environment or the command names the GPUs; without a name, it may be any GPU."""
    config = parse_models(a={"cmd": "serve", **keys})
    assert gpus_of(config.models["a"]) == gpus


@pytest.mark.parametrize(
    ("text", "watched"),
    [
        ({}, False),
        ({"groups": {"g": {"persistent": True, "members": ["a"]}}}, True),
        ({"groups": {"g": {"persistent": False, "members": ["a"]}}}, False),
        ({"groups": {"g": {"persistent": True, "members": ["b"]}}}, False),
        ({"hooks": {"on_startup": {"preload": ["a"]}}}, True),
        ({"hooks": {"on_startup": {"preload": [" alias "]}}}, True),
        ({"hooks": {"on_startup": {"preload": ["b"]}}}, False),
    ],
)
@pytest.mark.parametrize("says", [None, True, False])
def test_a_model_is_watched_where_the_file_wants_it_to_be_there(
    text: dict[str, object], watched: bool, says: bool | None
) -> None:
    """Persistent and preloaded models are watched; but the model's own setting counts first."""
    own = {} if says is None else {"watch": says}
    models = {
        "a": {"cmd": "serve a", "proxy": "http://model.test:9", "aliases": ["alias"], **own},
        "b": {"cmd": "serve b", "proxy": "http://model.test:8"},
    }
    config = parse(yaml.safe_dump({"models": models, **text})).config
    assert is_watched(config, config.models["a"]) == (watched if says is None else says)


def sleeper(name: str, gpu: str = "") -> str:
    env = {"env": f"['CUDA_VISIBLE_DEVICES={gpu}']"} if gpu else {}
    return model(f"serve {name}", cmdSleep="sleep 1", cmdWake="sleep 1", **env)


async def test_only_those_leave_that_sleep_on_the_same_gpu(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """A sleeper that names no GPU may be on any."""
    programs.cramped.add("serve a")
    a = model("serve a", env="['CUDA_VISIBLE_DEVICES=1']")
    models = {"a": a, "b": sleeper("b", "0"), "c": sleeper("c", "1"), "d": sleeper("d")}
    async with supervising(programs, **models) as supervisor:
        for name in "bcd":
            await use(supervisor, name)
        around = supervisor.servers["a"].around
        await supervisor.unload("d")
        assert around.sleepers() == ["c"]
        await use(supervisor, "d")
        await supervisor.sleep("d")
        assert sorted(around.sleepers()) == ["c", "d"]
        programs.cramped.clear()
        await around.clear()
        states = [state(supervisor, name) for name in "bcd"]
        assert states == [State.ASLEEP, State.STOPPED, State.STOPPED]
        assert around.sleepers() == []
        await trio.lowlevel.checkpoint()


async def test_ports_of_all_others_are_taken(
    autojump_clock: MockClock, programs: FakePrograms
) -> None:
    """The others' ports are taken whether they run or not; the model's own port is not."""
    ported = {"cmd": "serve ${PORT}", "proxy": "http://model.test:${PORT}"}
    text = yaml.safe_dump({"startPort": 5800, "models": {"a": ported, "b": ported, "c": ported}})
    async with supervise(text) as supervisor:
        assert supervisor.servers["b"].around.taken_ports() == {5800, 5802}


def test_models_of_two_machines_share_no_gpu() -> None:
    """So a start that lacks memory stops no sleeper elsewhere."""
    text = "clusters: {c: {}}\nallocations: {g: {gres: 'gpu:1'}}\n"
    text += "models: {here: {cmd: 'x ${PORT}'}, too: {cmd: 'x ${PORT}'}, "
    text += "a: {cmd: x, in: g}, b: {cmd: x, in: g}}"
    models = parse(text).config.models
    assert meet(models["here"], models["too"])
    assert meet(models["a"], models["b"])
    assert not meet(models["here"], models["a"])
