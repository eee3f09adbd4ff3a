"""Clusters, allocations and their models: what a file may contain, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import yaml

from configschema import Call, Config, ConfigError, parse
from configschema.keys.clusters import bytes_of, ports_of
from supervisor.succession.changes import changes
from supervisor.succession.records import fingerprint
from tests.configschema.landing import ENTRANCE, landed

REPORTED = """
clusters:
  hpc: {engine: slurm, partition: gpu, account: x, sbatch: ["--time=2-00:00:00"],
        folder: /shared/llamadoze, queueTimeout: 600}
allocations:
  gpu-a: {cluster: hpc, gres: "gpu:1", mem: 64G, idle: 900}
models:
  chat: {cmd: "vllm serve m --enable-sleep-mode --host ${HOST} --port ${PORT}", sleep: vllm,
         env: [VLLM_SERVER_DEV_MODE=1], in: gpu-a}
  code: {cmd: "server --port ${PORT}", in: gpu-a}
  big:  {cmd: "server --port ${PORT}", in: {cluster: hpc, gres: "gpu:4"}}
"""


def whole(model: Mapping[str, object], **more: object) -> str:
    """Return a file with one model in a cluster."""
    data: dict[str, object] = {
        "clusters": {"hpc": {}},
        "allocations": {"gpu-a": {"gres": "gpu:1"}},
        "models": {"a": {"cmd": "server --port ${PORT}", "in": "gpu-a", **model}},
        **more,
    }
    return yaml.safe_dump(data)


def problems_of(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return str(caught.value)


def config_of(text: str) -> Config:
    return parse(text).config


def test_models_share_an_allocation_or_have_their_own() -> None:
    """The file says which models share one; models without an allocation run on this machine."""
    models = config_of(REPORTED).models
    assert models["chat"].allocation == models["code"].allocation == "gpu-a"
    assert models["big"].allocation == "(big)"
    chat, big = models["chat"].holding, models["big"].holding
    assert chat is not None
    assert big is not None
    assert (chat.cluster, chat.allocation.idle, chat.settings.queue_timeout) == ("hpc", 900, 600)
    assert (big.allocation.gres, big.settings.partition) == ("gpu:4", "gpu")
    assert config_of("models: {a: {cmd: server, proxy: 'http://x'}}").models["a"].holding is None


def test_no_address_is_needed_and_no_port_is_taken() -> None:
    """llamadoze finds the address and the port on the node."""
    config = config_of(REPORTED)
    assert all(model.port is None for model in config.models.values())
    assert config.models["chat"].proxy == "http://${HOST}:${PORT}"


def test_a_model_that_has_landed_is_asked_by_way_of_its_entrance() -> None:
    """Its steps use the entrance, too; cmd stays, because the next server may land elsewhere."""
    model = config_of(REPORTED).models["chat"]
    there = landed(model)
    assert there.proxy == "http://127.0.0.1:4321"
    assert there.entrance == ENTRANCE
    sleep = there.recipe.sleep[0]
    assert isinstance(sleep, Call)
    assert sleep.url == "http://127.0.0.1:4321/sleep?level=1"
    assert sleep.entrance == ENTRANCE
    assert there.cmd == model.cmd
    assert "${PORT}" not in there.shown["cmd"]
    assert there.as_written.proxy == model.proxy
    again = landed(there.as_written, port=5)
    assert again.proxy == "http://127.0.0.1:5"
    assert again.cmd == model.cmd


def test_what_goes_to_another_address_does_not_go_through_the_entrance() -> None:
    """For example, a step may send a request to a server of the operator's own."""
    endpoints = [{"endpoint": "/sleep"}, {"endpoint": "http://other:1/told"}]
    keys = {"sleepMode": "enable", "sleepEndpoints": endpoints, "wakeEndpoints": endpoints}
    there = landed(config_of(whole(keys)).models["a"])
    ours, other = there.recipe.sleep
    assert isinstance(ours, Call)
    assert isinstance(other, Call)
    assert ours.entrance == ENTRANCE
    assert other.entrance is None


def test_the_address_may_stand_wherever_the_model_needs_it() -> None:
    """The commands for sleep and wake may use the address, too."""
    keys = {"cmdSleep": "s http://${HOST}:${PORT}/x", "cmdWake": "w ${PORT}"}
    there = landed(config_of(whole({**keys, "proxy": "http://${HOST}:${PORT}/base"})).models["a"])
    assert there.cmd_sleep.argv == ("s", "http://127.0.0.1:4321/x")
    assert there.cmd_wake.argv == ("w", "4321")
    assert there.proxy == "http://127.0.0.1:4321/base"


def test_macros_of_the_operators_own_win() -> None:
    """An existing file may already have a macro of that name."""
    text = whole({"cmd": "server --host ${HOST} --port ${PORT}", "macros": {"HOST": "0.0.0.0"}})
    assert "0.0.0.0" in config_of(text).models["a"].cmd.argv


def test_without_clusters_no_key_of_theirs_changes_anything() -> None:
    """A file that has such a key by chance works as before."""
    model = "{cmd: 'server --port ${PORT}', in: elsewhere}"
    loaded = parse(f"allocations: {{x: {{gres: 5}}}}\nmodels: {{a: {model}}}")
    assert loaded.config.models["a"].holding is None
    assert loaded.config.models["a"].port is not None
    assert any("the file has no clusters" in str(warning) for warning in loaded.warnings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (whole({"in": "gpu-b"}), "there is no allocation gpu-b; did you mean gpu-a?"),
        (whole({}, allocations={"gpu-a": {"cluster": "hcp"}}), "there is no cluster hcp"),
        (whole({}, clusters={"a": {}, "b": {}}), "is required if there are several clusters"),
        (whole({}, allocations={"gpu-a": {"mem": "lots"}}), "expected memory such as 64G"),
        (whole({}, allocations={"gpu-a": {"time": "soon"}}), "expected a time as sbatch has it"),
        (whole({}, allocations={"gpu-a": {"sbatch": ["qos=high"]}}), "expected an option"),
        (whole({}, clusters={"hpc": {"ports": "9-1"}}), "expected two ports"),
        (whole({}, clusters={"hpc": {"engine": "pbs"}}), "expected slurm"),
        (whole({"in": {"allocation": "gpu-a", "mem": "1G"}}), "belongs in allocation gpu-a"),
        (whole({"detached": True}), "remove detached"),
        (whole({"sleep": "cuda-checkpoint"}), "processes of this machine only"),
        (whole({"cmd": "server ${PROT}"}), "unknown macro"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, message: str) -> None:
    """The error comes before llamadoze sends anything to a cluster."""
    assert message in problems_of(text).replace("'", "")


def test_another_allocation_needs_another_server() -> None:
    """Other times for idling and queueing need no new server."""
    old = config_of(REPORTED)
    more = config_of(REPORTED.replace("64G", "32G"))
    assert changes(old, more).replaced == ("chat", "code")
    longer = config_of(REPORTED.replace("idle: 900", "idle: 9").replace("queueTimeout: 600", ""))
    assert changes(old, longer).replaced == ()


def test_a_server_is_recognised_wherever_it_has_landed() -> None:
    """The next daemon, which only has the file, must recognise the server."""
    model = config_of(REPORTED).models["chat"]
    assert fingerprint(landed(model)) == fingerprint(model)


@pytest.mark.parametrize(
    ("text", "size"),
    [("64G", 64 << 30), ("512", 512 << 20), ("1.5t", 3 << 39), ("8GB", 8 << 30), ("much", None)],
)
def test_memory_is_read_as_slurm_reads_it(text: str, size: int | None) -> None:
    """Without a unit, the number means megabytes, as in Slurm."""
    assert bytes_of(text) == size


@pytest.mark.parametrize(
    ("text", "ports"), [("", (0, 0)), ("1-2", (1, 2)), ("0-5", None), ("7", None)]
)
def test_a_range_of_ports_has_two_ends(text: str, ports: tuple[int, int] | None) -> None:
    """An empty text means any port."""
    assert ports_of(text) == ports


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (whole({"cmd": "server --host 0.0.0.0 --port ${PORT}"}), "opens the server"),
        (whole({"cmd": "server"}), "does not use ${PORT}"),
        (whole({"cmd": "srun server --port ${PORT}"}), "a step within a step"),
        (whole({}, allocations={"gpu-a": {}, "gpu-b": {}}), "no model runs in it"),
    ],
)
def test_what_is_hardly_meant_is_warned_of(text: str, message: str) -> None:
    """A warning does not keep llamadoze from serving the models."""
    assert any(message in str(warning) for warning in parse(text).warnings)


def test_files_and_programs_of_a_node_are_not_looked_for_here() -> None:
    """Files and programs of a node need not exist on this machine."""
    text = whole({"cmd": "no-such-server -m /no/such.gguf --port ${PORT}"})
    assert not parse(text).warnings
