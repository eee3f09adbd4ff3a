"""The first configuration: what `init` finds, and that the written file can be used."""

from __future__ import annotations

import json
import os
from pathlib import Path

import attrs
import pytest

from configschema import parse
from proxy.beginning.findings import Found, Weights, look
from proxy.beginning.firstfile import left_out, written
from tests.system.daemon import run

PROGRAMS = {name: f"/usr/bin/{name}" for name in ("llama-server", "vllm", "ollama")}
MIB = 1 << 20


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home, isolated from the rest of this machine."""
    for name in ("HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "OLLAMA_MODELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def weigh(file: Path, size: int = 2 * MIB) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as opened:
        opened.write(b"GGUF")
        opened.truncate(size)


def program(home: Path, name: str, help_text: str = "") -> None:
    file = home / "bin" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"#!/bin/sh\necho '{help_text}'\n")
    file.chmod(0o755)


def test_gguf_files_are_found_where_they_usually_are(home: Path) -> None:
    """Split files count as one model, a projector belongs to its model, and a vocabulary is
    ignored."""
    weigh(home / "models/a-Q4_K_M.gguf")
    weigh(home / "models/deep/er/b.gguf", 3 * MIB)
    weigh(home / "models/big-00001-of-00002.gguf", 4 * MIB)
    weigh(home / "models/big-00002-of-00002.gguf", 4 * MIB)
    weigh(home / "models/lost-00001-of-00002.gguf")
    weigh(home / "models/eyes/c.gguf", 5 * MIB)
    weigh(home / "models/eyes/mmproj-F16.gguf")
    weigh(home / "models/ggml-vocab-bert.gguf")
    weigh(home / "models/.hidden.gguf")
    (home / "models/text.gguf").write_text("no weights")
    weigh(home / ".cache/llama.cpp/d.gguf", 6 * MIB)
    found = {one.name: one for one in look().weights}
    assert sorted(found) == ["a-Q4_K_M", "b", "big", "c", "d"]
    assert found["big"].size == 8 * MIB
    assert found["c"].projector.endswith("mmproj-F16.gguf")
    assert found["a-Q4_K_M"].projector == ""


def test_a_projector_belongs_to_its_model_alone(home: Path) -> None:
    """In a folder with several models, the projector's name decides; no projector is a model."""
    flat = home / "models"
    for name in ("gemma-4b-Q4_0", "gemma-mmproj-f16", "gemma-mmproj-bf16", "qwen-8b-Q4_0"):
        weigh(flat / f"{name}.gguf")
    for name in ("one-Q8_0", "mmproj-BF16", "mmproj-F16"):
        weigh(flat / "alone" / f"{name}.gguf")
    found = {one.name: one.projector.rpartition("/")[2] for one in look().weights}
    assert found == {
        "gemma-4b-Q4_0": "gemma-mmproj-f16.gguf",
        "qwen-8b-Q4_0": "",
        "one-Q8_0": "mmproj-F16.gguf",
    }


def test_names_that_no_command_can_hold_are_left_out(home: Path) -> None:
    """The output counts the models that were left out; names in another alphabet are allowed."""
    program(home, "llama-server")
    weigh(home / "models" / "ünï-Q4_0.gguf", 1000)
    for name in ("模型.gguf", "line\nbreak.gguf", "esc\x1b[0m.gguf", "${PORT}.gguf"):
        weigh(home / "models" / name)
    weigh(home / "models" / os.fsdecode(b"a\xff.gguf"))
    (home / ".cache/huggingface/hub/models--x--y/snapshots").mkdir(parents=True)
    (home / ".cache/huggingface/hub/models--x--y/snapshots/1").symlink_to("/nowhere")
    found = look()
    models = parse(written(found)).config.models
    assert sorted(models) == ["model", "uni"]
    model = models["model"]
    assert str(home / "models" / "模型.gguf") in model.cmd.argv
    assert left_out(found) == ["left out: 4 models with control characters or ${ in the path"]


def test_a_program_of_an_environment_is_named_whole() -> None:
    """The file has the program's full path, because a service has another PATH."""
    path = "/home/me/my env/bin/vllm"
    found = Found(programs={"vllm": path}, weights=())
    assert parse(written(found)).config.models["small"].cmd.argv[0] == path


def test_the_caches_of_hugging_face_and_ollama_are_read(home: Path) -> None:
    """A repository whose config.json names no architecture is left out."""
    hub = home / ".cache/huggingface/hub"
    for name, config in (("models--org--chat", {"architectures": ["X"]}), ("models--org--y", {})):
        weigh(hub / name / "snapshots/1/model.safetensors")
        (hub / name / "snapshots/1/config.json").write_text(json.dumps(config))
    weigh(hub / "models--org--z/snapshots/1/z-Q8_0.gguf")
    manifest = home / ".ollama/models/manifests/registry.ollama.ai/library/gemma3/1b"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"layers": [{"size": 7}, {"size": 1}]}))
    found = {(one.format, one.where.removeprefix(str(hub))) for one in look().weights}
    assert ("safetensors", "org/chat") in found
    assert ("ollama", "gemma3:1b") in found
    assert ("gguf", "/models--org--z/snapshots/1/z-Q8_0.gguf") in found
    assert len(found) == 3


@pytest.mark.parametrize("naps", [False, True])
def test_a_llama_server_sleeps_if_it_can(home: Path, naps: bool) -> None:
    """The help text of llama-server shows whether it can sleep."""
    program(home, "llama-server", "--sleep-idle-seconds N" if naps else "--port N")
    weigh(home / "models/a.gguf")
    found = look()
    assert found.naps is naps
    model = parse(written(found)).config.models["a"]
    assert model.can_sleep is naps


WEIGHTS = (
    Weights(name="Chat-8B-Q4_K_M", format="gguf", where="/m/Chat-8B-Q4_K_M.gguf", size=5 << 30),
    Weights(name="Chat-8B-Q8_0", format="gguf", where="/m/with space/Chat's.gguf", size=9 << 30),
    Weights(name="chat-8b", format="safetensors", where="org/chat-8b", size=16 << 30),
    Weights(name="bge-reranker-v2", format="gguf", where="/m/r.gguf"),
    Weights(name="nomic-embed-text", format="gguf", where="/m/e.gguf"),
    Weights(name="gemma3:1b", format="ollama", where="gemma3:1b"),
)


def test_what_is_written_can_be_used() -> None:
    """Each model has its own name and the options for its purpose, and there is no warning."""
    gpus = (("NVIDIA L4", 24 << 30),)
    found = Found(programs=PROGRAMS, weights=WEIGHTS, gpus=gpus, naps=True)
    loaded = parse(written(found))
    config = loaded.config
    assert sorted(config.models) == [
        *("bge-reranker-v2", "chat-8b", "chat-8b-2", "chat-8b-q8_0", "gemma3-1b"),
        "nomic-embed-text",
    ]
    assert config.routing.router.use == "memory"
    assert "'/m/with space/Chat" not in str(config.models)
    assert all(model.can_sleep for model in config.models.values())
    assert "--reranking" in config.models["bge-reranker-v2"].cmd.text
    assert "--embeddings" in config.models["nomic-embed-text"].cmd.text
    told = [str(one) for one in loaded.warnings if "is not on PATH" not in str(one)]
    assert not [one for one in told if "no such file" not in one.lower()]


ODD_FILES = {
    "/m/7.gguf": "7",
    "/m/true.gguf": "true",
    "/m/2024-01-01.gguf": "2024-01-01",
    '/m/a "b".gguf': "a-b",
    "/m/a\\b #1.gguf": "a-b-1",
}


@pytest.mark.parametrize("file", ODD_FILES)
def test_odd_names_stay_names(file: str) -> None:
    """YAML might read such a name as a number or a boolean; a command might split it."""
    weights = Weights(name=Path(file).stem, format="gguf", where=file, size=MIB)
    models = parse(written(Found(programs=PROGRAMS, weights=(weights,)))).config.models
    assert list(models) == [ODD_FILES[file]]
    assert file in models[ODD_FILES[file]].cmd.argv


def test_without_a_gpu_one_model_runs_at_a_time() -> None:
    """This rule needs no measured memory."""
    config = parse(written(Found(programs=PROGRAMS, weights=WEIGHTS))).config
    assert config.routing.router.use != "memory"


@pytest.mark.parametrize("name", PROGRAMS)
def test_without_weights_there_is_a_small_model_to_begin_with(name: str) -> None:
    """The server downloads the small model itself, or one command downloads the model."""
    found = Found(programs={name: PROGRAMS[name]}, weights=(), naps=True)
    loaded = parse(written(found))
    assert list(loaded.config.models) == ["small"]
    assert loaded.config.models["small"].can_sleep
    assert not [str(one) for one in loaded.warnings if "is not on PATH" not in str(one)]


def test_what_no_program_serves_is_left_out() -> None:
    """The output names the models that were left out, and the missing program."""
    found = Found(programs={"vllm": "/usr/bin/vllm"}, weights=WEIGHTS)
    assert list(parse(written(found)).config.models) == ["chat-8b"]
    assert left_out(found) == [
        "left out: 4 models for llama-server, which is not on PATH",
        "left out: 1 model for ollama, which is not on PATH",
    ]
    assert left_out(attrs.evolve(found, programs=PROGRAMS)) == []


def test_a_new_user_writes_checks_and_is_told_what_is_next(tmp_path: Path) -> None:
    """`init` overwrites nothing; if it finds nothing, it says where to get models."""
    weigh(tmp_path / "models/tiny-Q4_0.gguf")
    program(tmp_path, "llama-server")
    env = {**os.environ, "HOME": str(tmp_path), "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    first = run("init", env=env, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines()[0] == "wrote config.yaml, with 1 model for llama-server"
    assert run("check", env=env, cwd=tmp_path).stdout == "config.yaml: good, 1 model\n"
    again = run("init", env=env, cwd=tmp_path)
    assert (again.returncode, again.stderr) == (
        1,
        "llamadoze: config.yaml exists already: --force overwrites it\n",
    )
    assert "tiny" in run("init", "-o", "-", env=env, cwd=tmp_path).stdout
    alone = {**env, "PATH": "/nowhere"}
    nothing = run("init", "-o", "other.yaml", env=alone, cwd=tmp_path)
    assert nothing.returncode == 1
    for word in ("llama-server -hf", "vLLM", "Ollama", "macOS", "llamadoze demo"):
        assert word in nothing.stderr
    assert not (tmp_path / "other.yaml").exists()
