"""All GPUs of a machine in one form: NVIDIA's from a fake NVML, others from made-up files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from supervisor.room import drm, nvml
from supervisor.room.devices import Device, look, look_at_all, matching
from supervisor.room.drm import Drm
from tests.supervisor.room.gpus import (
    GIB,
    FakeNvml,
    Process,
    made_up_nvml,
    open_gpu,
    plug_in,
)

FIRST, SECOND = "GPU-a1b2c3d4-0000", "GPU-b1b2c3d4-0000"
OF_AMD = "0000:03:00.0"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNvml]:
    module = FakeNvml()
    with made_up_nvml(monkeypatch, module):
        yield module


@pytest.fixture(autouse=True)
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Drm:
    """The kernel's files of a machine without a GPU."""
    made_up = Drm(tmp_path / "proc", tmp_path / "sys")
    monkeypatch.setattr(drm, "SYSTEM", made_up)
    monkeypatch.setattr(nvml, "DRIVER", tmp_path / "version")
    return made_up


def without_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)


def test_two_gpus_are_read_with_those_who_hold_their_memory(fake: FakeNvml) -> None:
    """A process with several parts of a GPU is listed with their sum."""
    fake.compute = [[Process(1, 10), Process(2, 20), Process(2, 5)], [Process(2, 7)]]
    one, two = look([])
    assert (one.device.name, one.device.index, one.device.vendor) == (FIRST, 0, "nvidia")
    assert (one.device.title, one.device.total, one.used) == ("Made up 0", 24 * GIB, 35)
    assert (one.held, two.held) == ({1: 10, 2: 25}, {2: 7})
    assert (two.device.name, two.device.index) == (SECOND, 1)


def test_a_driver_that_counts_for_no_process_says_so(fake: FakeNvml) -> None:
    """This happens under a hypervisor; of an idle GPU it is known that nobody holds it."""
    fake.compute = [[Process(1, None)], []]
    one, two = look([])
    assert (one.held, two.held) == (None, {})
    seen = look_at_all([])
    assert (seen.held_by([1]), seen.held_by([2])) == (None, 0)
    assert seen.pids == {1}


def test_one_process_that_is_not_counted_leaves_the_others_known(fake: FakeNvml) -> None:
    """The process that is not counted is a stranger and belongs to no model."""
    fake.compute = [[Process(1, None), Process(2, 20)], []]
    seen = look_at_all([])
    assert seen.readings[0].held == {2: 20}
    assert (seen.held_by([1]), seen.held_by([2])) == (None, 20)


def test_a_gpu_that_is_lost_is_left_out(fake: FakeNvml) -> None:
    """The other GPU keeps its index, and sums are no longer known."""
    fake.compute = [[Process(1, 10)], [Process(1, 20)]]
    fake.lost = {0}
    (left,) = look([])
    assert (left.device.name, left.device.index, left.held) == (SECOND, 1, {1: 20})
    seen = look_at_all([])
    assert (seen.held_by([1]), seen.by_device([1])) == (None, {SECOND: 20})


def test_a_gpu_with_the_hosts_memory_is_no_device_and_counts(fake: FakeNvml) -> None:
    """Its driver tells what processes hold, but no total."""
    fake.has_memory, fake.compute = False, [[Process(1, 10)], []]
    seen = look_at_all([])
    assert (look([]), seen.held_by([1]), seen.by_device([1])) == ([], 10, {})


def test_without_a_driver_there_is_no_gpu(fake: FakeNvml) -> None:
    """There is one as soon as the driver is loaded."""
    fake.broken = True
    assert (look([]), look_at_all([]).held_by([1])) == ([], None)
    fake.broken = False
    assert len(look([])) == 2


def test_without_the_library_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without NVIDIA's library, no GPU of NVIDIA is seen."""
    without_library(monkeypatch)
    assert (look([]), look_at_all([]).is_whole) == ([], False)


def test_amds_gpus_are_read_without_a_library(
    system: Drm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Sums are known, unless NVIDIA's driver is there, too, and cannot be asked."""
    without_library(monkeypatch)
    figures = {"mem_info_vram_total": 16 * GIB, "mem_info_vram_used": 5 * GIB}
    plug_in(system.sys, "card0", "amdgpu", OF_AMD, product_name="Made up", **figures)
    open_gpu(system.proc, 10, 4, OF_AMD, client_id=7, resident_vram="3 GiB")
    (reading,) = look([10])
    assert (reading.device.name, reading.device.vendor) == (OF_AMD, "amd")
    assert (reading.device.title, reading.used, reading.held) == (
        "Made up",
        5 * GIB,
        {10: 3 * GIB},
    )
    assert look_at_all([10]).held_by([10, 11]) == 3 * GIB
    (tmp_path / "version").touch()
    assert look_at_all([10]).held_by([10]) is None


def test_of_a_process_that_hides_a_sum_is_not_known(
    system: Drm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process may hold memory of AMD's GPU, in a container of another user."""
    without_library(monkeypatch)
    plug_in(system.sys, "card0", "amdgpu", OF_AMD, mem_info_vram_total=16 * GIB)
    (system.proc / "10").mkdir(parents=True)
    (system.proc / "10/fd").symlink_to("fd")
    seen = look_at_all([10, 11])
    assert (seen.held_by([10]), seen.held_by([11])) == (None, 0)
    assert seen.readings[0].uncounted == {10}


def test_all_vendors_gpus_are_read_together(fake: FakeNvml, system: Drm) -> None:
    """Each vendor counts its own GPUs."""
    plug_in(system.sys, "card0", "amdgpu", OF_AMD, mem_info_vram_total=16 * GIB)
    open_gpu(system.proc, 1, 4, OF_AMD, client_id=7, resident_vram=5)
    fake.compute = [[Process(1, 10)], []]
    seen = look_at_all([1])
    assert [(one.device.vendor, one.device.index) for one in seen.readings] == [
        ("nvidia", 0),
        ("nvidia", 1),
        ("amd", 0),
    ]
    assert (seen.held_by([1]), seen.by_device([1])) == (15, {FIRST: 10, OF_AMD: 5})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0", FIRST),
        (" 1 ", SECOND),
        (FIRST, FIRST),
        (FIRST.upper(), FIRST),
        ("GPU-b1", SECOND),
        ("0000:c1:00.0", FIRST),
        ("C1:00.0", FIRST),
        ("2", None),
        ("GPU-", None),
        ("GPU-c", None),
        ("all", None),
        ("", None),
        ("MIG-a1b2c3d4-0000", None),
        ("0,1", None),
    ],
)
def test_a_device_is_found_by_what_an_operator_writes(
    fake: FakeNvml, text: str, found: str | None
) -> None:
    """An operator may write the index, the UUID, the beginning of the UUID, or the address."""
    assert fake.draws
    match = matching([one.device for one in look([])], text)
    assert (match.name if match else None) == found


def test_what_two_devices_are_known_as_matches_none(fake: FakeNvml) -> None:
    """Examples are an index that two vendors have, and a beginning that two UUIDs share."""
    assert fake.draws
    one, two = (reading.device for reading in look([]))
    other: Device = attrs.evolve(one, name="GPU-a1ff", vendor="amd")
    assert matching([one, two, other], "0") is None
    assert matching([one, two, other], "GPU-a1") is None
    assert matching([one, two, other], "GPU-a1b") == one
