"""What the kernel tells of AMD's and Intel's GPUs, from made-up files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.room.drm import Card, Drm
from tests.supervisor.room.gpus import GIB, open_gpu, plug_in, write

MIB = 1 << 20
FIRST, SECOND = "0000:03:00.0", "0000:43:00.0"


@pytest.fixture
def drm(tmp_path: Path) -> Drm:
    return Drm(tmp_path / "proc", tmp_path / "sys")


def amd(drm: Drm, address: str = FIRST, card: str = "card0", total: int = 16 * GIB) -> Path:
    figures = {"mem_info_vram_total": total, "mem_info_vram_used": 5 * GIB}
    return plug_in(drm.sys, card, "amdgpu", address, **figures)


def by_rocm(drm: Drm, pid: int, size: int) -> None:
    """Let a process hold memory of the first GPU by AMD's compute driver."""
    kfd = drm.sys / "class/kfd/kfd"
    write(kfd / "topology/nodes/1/gpu_id", 51545)
    write(kfd / "topology/nodes/1/properties", "simd_count 96\nlocation_id 768\ndomain 0")
    write(kfd / f"proc/{pid}/vram_51545", size)


def only(cards: list[Card]) -> Card:
    (card,) = cards
    return card


def test_an_amd_gpu_tells_what_it_has_and_who_holds_it(drm: Drm) -> None:
    """The kernel tells the memory of each process, and of all together."""
    amd(drm)
    open_gpu(drm.proc, 10, 4, FIRST, client_id=7, resident_vram="3 GiB", memory_vram="3 GiB")
    open_gpu(drm.proc, 11, 4, FIRST, client_id=8, resident_vram="512 KiB")
    card = only(drm.cards([10, 11]))
    assert (card.address, card.vendor, card.index) == (FIRST, "amd", 0)
    assert (card.total, card.used) == (16 * GIB, 5 * GIB)
    assert card.held == {10: 3 * GIB, 11: 512 << 10}


def test_a_client_with_several_descriptors_counts_once(drm: Drm) -> None:
    """Each descriptor shows all that its client holds; another client of the process adds to it."""
    amd(drm)
    for descriptor in (4, 5):
        open_gpu(drm.proc, 10, descriptor, FIRST, client_id=7, resident_vram="100 MiB")
    open_gpu(drm.proc, 10, 6, FIRST, client_id=9, resident_vram=MIB)
    assert only(drm.cards([10])).held == {10: 101 * MIB}


def test_a_client_that_a_child_has_too_counts_for_the_first(drm: Drm) -> None:
    """A fork copies descriptors, but no GPU memory."""
    amd(drm)
    for pid in (10, 11):
        open_gpu(drm.proc, pid, 4, FIRST, client_id=7, resident_vram="100 MiB")
    assert only(drm.cards([10, 11])).held == {10: 100 * MIB}


def test_an_older_kernel_without_clients_counts_each_process(drm: Drm) -> None:
    """An older kernel has another figure for each process, which is used."""
    amd(drm)
    for pid in (10, 11):
        open_gpu(drm.proc, pid, 4, FIRST, memory_vram="100 MiB", memory_gtt="9 GiB")
    assert only(drm.cards([10, 11])).held == {10: 100 * MIB, 11: 100 * MIB}


def test_what_is_not_in_the_gpus_memory_is_not_counted(drm: Drm) -> None:
    """Memory that was evicted from the GPU is not counted either."""
    amd(drm)
    figures = {"total_vram": "9 GiB", "resident_gtt": "2 GiB", "resident_vram": "0"}
    open_gpu(drm.proc, 10, 4, FIRST, client_id=7, **figures)
    assert only(drm.cards([10])).held == {}


def test_what_a_process_holds_by_rocm_counts(drm: Drm) -> None:
    """Some kernels leave it out of the client's figure; elsewhere it is not counted twice."""
    amd(drm)
    by_rocm(drm, 10, 4 * GIB)
    by_rocm(drm, 11, 1 * GIB)
    open_gpu(drm.proc, 11, 4, FIRST, client_id=7, resident_vram="1536 MiB")
    assert only(drm.cards([10, 11, 12])).held == {10: 4 * GIB, 11: 1536 * MIB}


def test_indexes_are_those_of_rocm(drm: Drm) -> None:
    """ROCm counts in its driver's order, and includes a GPU within a processor."""
    amd(drm, SECOND, "card0")
    amd(drm, "0000:0c:00.0", "card1", total=GIB // 2)
    amd(drm, FIRST, "card2")
    assert {card.address: card.index for card in drm.cards([])} == {FIRST: 0, SECOND: 2}
    nodes = drm.sys / "class/kfd/kfd/topology/nodes"
    write(nodes / "0/gpu_id", 0)
    for node, bus in ((2, 0x0C), (1, 0x43), (10, 0x03)):
        write(nodes / str(node) / "gpu_id", 100 + node)
        write(nodes / str(node) / "properties", f"location_id {bus << 8}\ndomain 0")
    assert {card.address: card.index for card in drm.cards([])} == {FIRST: 2, SECOND: 0}


@pytest.mark.parametrize(
    "figures",
    [{"resident_vram0": "2 GiB"}, {"resident_local0": "1 GiB", "resident_local1": "1024 MiB"}],
    ids=["xe", "i915"],
)
def test_of_an_intel_gpu_is_used_what_is_seen_of_processes(
    drm: Drm, figures: dict[str, str]
) -> None:
    """Intel's drivers tell only the total, so the used memory is the sum over processes."""
    device = plug_in(drm.sys, "card1", "xe", FIRST)
    for tile in (0, 1):
        write(device / f"tile{tile}/physical_vram_size_bytes", 8 * GIB)
    open_gpu(drm.proc, 10, 4, FIRST, client_id=1, **figures)
    open_gpu(drm.proc, 11, 4, FIRST, client_id=2, resident_vram0="1 GiB", resident_system="9 GiB")
    card = only(drm.cards([10, 11]))
    assert (card.vendor, card.total, card.used) == ("intel", 16 * GIB, 3 * GIB)
    assert card.held == {10: 2 * GIB, 11: GIB}


def test_intels_own_build_of_i915_tells_the_memory_of_a_card(drm: Drm) -> None:
    """The kernel's own build does not, so such a GPU is not seen."""
    plug_in(drm.sys, "card0", "i915", FIRST)
    assert drm.cards([]) == []
    write(drm.sys / "class/drm/card0/lmem_total_bytes", 16 * GIB)
    assert only(drm.cards([])).total == 16 * GIB


def test_a_gpu_within_a_processor_is_left_out(drm: Drm) -> None:
    """Its memory is too little for a model; one with much memory counts like any other GPU."""
    amd(drm, FIRST, "card0", total=512 * MIB)
    plug_in(drm.sys, "card1", "i915", "0000:00:02.0")
    assert drm.cards([]) == []
    amd(drm, SECOND, "card2", total=64 * GIB)
    assert only(drm.cards([])).address == SECOND


def test_others_cards_outputs_and_drivers_are_no_gpus(drm: Drm) -> None:
    """NVIDIA's GPUs come from NVML."""
    plug_in(drm.sys, "card0", "nvidia", FIRST, mem_info_vram_total=16 * GIB)
    amd(drm, SECOND, "card1-HDMI-A-1")
    assert drm.cards([]) == []


def test_without_a_gpu_no_process_is_looked_at(drm: Drm) -> None:
    """The processes are not even listed; a GPU within a processor is no GPU here."""

    def pids() -> Iterator[int]:
        raise AssertionError
        yield 1

    amd(drm, FIRST, "card0", total=512 * MIB)
    assert drm.cards(pids()) == []


def test_a_process_that_is_gone_or_hides_holds_nothing(drm: Drm) -> None:
    """A file that cannot be read is no failure, and nonsense is none either."""
    amd(drm)
    open_gpu(drm.proc, 10, 4, FIRST, client_id=7, resident_vram="much")
    open_gpu(drm.proc, 11, 4, FIRST, client_id=8, resident_vram="1 MiB")
    (drm.proc / "11/fdinfo/4").unlink()
    card = only(drm.cards([10, 11, 12]))
    assert (card.held, card.hidden) == ({}, frozenset())


def test_what_another_users_process_holds_is_not_known(
    drm: Drm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ROCm's figures are an exception, because everybody may read them."""

    def refused(path: Path | str) -> list[str]:
        if str(path).endswith("/fd"):
            raise PermissionError
        return listed(path)

    amd(drm)
    by_rocm(drm, 10, 4 * GIB)
    listed = os.listdir
    monkeypatch.setattr(os, "listdir", refused)
    card = only(drm.cards([10, 11]))
    assert (card.held, card.hidden) == ({10: 4 * GIB}, frozenset({11}))


def test_descriptors_of_other_files_are_not_read(drm: Drm) -> None:
    """A server may have thousands of such descriptors."""
    amd(drm)
    open_gpu(drm.proc, 10, 4, FIRST, client_id=7, resident_vram="1 MiB")
    (drm.proc / "10/fd/4").unlink()
    (drm.proc / "10/fd/4").symlink_to("socket:[1234]")
    assert only(drm.cards([10])).held == {}
