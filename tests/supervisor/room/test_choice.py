"""How llamadoze limits a model to some GPUs, and what the model's own file says of GPUs."""

from __future__ import annotations

import pytest

from supervisor.room.choice import environment_for, said_by
from supervisor.room.devices import Device


def device(name: str, vendor: str, index: int) -> Device:
    return Device(
        name=name, vendor=vendor, index=index, title="", total=1, known_as=frozenset([str(index)])
    )


A, B = device("GPU-a", "nvidia", 0), device("GPU-b", "nvidia", 1)
C, D = device("0000:03:00.0", "amd", 2), device("0000:04:00.0", "intel", 1)


def test_nvidias_gpus_are_named_by_uuid() -> None:
    """CUDA does not number them as the driver does."""
    assert environment_for([B, A]) == {"CUDA_VISIBLE_DEVICES": "GPU-b,GPU-a"}


def test_other_vendors_gpus_are_named_by_index() -> None:
    """Each vendor has its own variable."""
    assert environment_for([C]) == {"ROCR_VISIBLE_DEVICES": "2"}
    assert environment_for([D]) == {"ZE_AFFINITY_MASK": "1"}
    assert environment_for([A, C]) == {
        "CUDA_VISIBLE_DEVICES": "GPU-a",
        "ROCR_VISIBLE_DEVICES": "2",
    }


def test_a_model_that_is_to_run_on_no_gpu_is_kept_from_those_that_there_are() -> None:
    """Intel's GPUs are an exception, because they cannot be hidden."""
    assert environment_for([]) == {}
    assert environment_for([], ["nvidia"]) == {"CUDA_VISIBLE_DEVICES": ""}
    assert environment_for([], ["amd", "intel"]) == {"ROCR_VISIBLE_DEVICES": ""}


def test_a_gpu_is_chosen_without_a_word_to_other_vendors() -> None:
    """HIP heeds CUDA's variable, so an empty one would hide AMD's GPU as well."""
    assert environment_for([C], ["nvidia", "amd"]) == {"ROCR_VISIBLE_DEVICES": "2"}


@pytest.mark.parametrize(
    ("env", "command", "said"),
    [
        ([], "llama-server --port 1", None),
        (["CUDA_VISIBLE_DEVICES=0,1"], "", "0,1"),
        (["HIP_VISIBLE_DEVICES=1"], "", "1"),
        (["ROCR_VISIBLE_DEVICES=GPU-ab"], "", "GPU-ab"),
        (["ZE_AFFINITY_MASK=0.1"], "", "0.1"),
        (["CUDA_VISIBLE_DEVICES="], "", ""),
        (["CUDA_VISIBLE_DEVICES=-1"], "", ""),
        (["NVIDIA_VISIBLE_DEVICES=none"], "", ""),
        (["NVIDIA_VISIBLE_DEVICES=all"], "", None),
        (["NVIDIA_VISIBLE_DEVICES=all", "CUDA_VISIBLE_DEVICES=1"], "", "1"),
        (["NVIDIA_VISIBLE_DEVICES=2", "CUDA_VISIBLE_DEVICES=0"], "", "2"),
        (["CUDA_VISIBLE_DEVICES"], "", None),
        (["OTHER=CUDA_VISIBLE_DEVICES=1"], "", None),
        ([], "env CUDA_VISIBLE_DEVICES=MIG-1a/2/3 serve", "MIG-1a/2/3"),
        ([], "env CUDA_VISIBLE_DEVICES= serve", ""),
        ([], "docker run -e CUDA_VISIBLE_DEVICES='0,1' x", "0,1"),
        ([], 'docker run -e "CUDA_VISIBLE_DEVICES=1" x', "1"),
        ([], 'docker run -e "CUDA_VISIBLE_DEVICES=" x', ""),
        ([], "sh -c 'CUDA_VISIBLE_DEVICES=1; serve'", "1"),
        ([], "docker run -e CUDA_VISIBLE_DEVICES x", None),
        ([], "env CUDA_VISIBLE_DEVICES=$GPU serve", None),
        ([], 'env CUDA_VISIBLE_DEVICES="$GPU" serve', None),
        ([], "env CUDA_VISIBLE_DEVICES=${GPU:-0} serve", None),
        ([], "env MY_CUDA_VISIBLE_DEVICES=1 serve", None),
        ([], "docker run --gpus all x", None),
        ([], "docker run --gpus device=GPU-a x", "GPU-a"),
        ([], "docker run --gpus='\"device=0,2\"' x", "0,2"),
        ([], "docker run --gpus '\"device=0,2\"' -e CUDA_VISIBLE_DEVICES=0 x", "0,2"),
    ],
)
def test_what_a_model_says_itself_is_read(env: list[str], command: str, said: str | None) -> None:
    """A variable that only passes the daemon's own value on, or names all GPUs, says nothing."""
    assert said_by(env, command) == said
