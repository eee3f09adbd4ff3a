"""Which GPUs a model's processes see: the environment that limits them, and what the file says.

Owns the variables of each vendor. Pure; the choice of the GPUs is made elsewhere. A program that
uses Vulkan ignores all of these variables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from supervisor.room.devices import Device

OF_CONTAINER = "NVIDIA_VISIBLE_DEVICES"
CHOICES = (
    OF_CONTAINER,
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "ZE_AFFINITY_MASK",
)
"""Variables that choose GPUs. A container's variable comes first: a choice within the container
counts from the GPUs that the container was given."""
_VARIABLES = {
    "nvidia": "CUDA_VISIBLE_DEVICES",
    "amd": "ROCR_VISIBLE_DEVICES",
    "intel": "ZE_AFFINITY_MASK",
}
_NONE, _ALL = ("", "none", "void", "-1"), "all"
# A value that the shell still has to fill in, such as "$N", tells nothing here.
_VALUE = r"""(?P<quote>["']?)(?P<value>[\w,.:/-]*)(?P=quote)(?=["']?(?:[\s;&|)]|$))"""
_ASSIGNED = re.compile(rf"\b(?P<name>{'|'.join(CHOICES)})={_VALUE}")
_GIVEN = re.compile(r"--gpus[ =]\S*?device=([\w,.:-]+)")


def environment_for(devices: Sequence[Device], vendors: Iterable[str] = ()) -> dict[str, str]:
    """Return the variables that let a model's processes see only some GPUs.

    NVIDIA's GPUs are named by UUID, as CUDA's numbers are not the driver's. Others are named by
    their index. The variables of another vendor are left alone: HIP obeys CUDA's variable, too.

    Args:
        devices: the GPUs; empty for a model that is to run on no GPU.
        vendors: for a model without GPUs: the vendors whose GPUs are hidden from it. Intel's GPUs
        cannot be hidden: Level Zero takes an empty mask for all GPUs.
    """
    if not devices:
        return {_VARIABLES[vendor]: "" for vendor in vendors if vendor in ("nvidia", "amd")}
    found: dict[str, list[str]] = {}
    for device in devices:
        if device.vendor not in _VARIABLES:  # an unknown vendor: the operator must choose
            continue
        said = device.name if device.vendor == "nvidia" else str(device.index)
        found.setdefault(_VARIABLES[device.vendor], []).append(said)
    return {variable: ",".join(said) for variable, said in found.items()}


def said_by(env: Sequence[str], command: str) -> str | None:
    """Return the GPUs that a model's own environment or command names, as it writes them.

    Args:
        env: entries such as ``NAME=value``.
        command: the text of its command.

    Returns:
        Names or indexes with commas between them; "" for no GPU at all; None if none is named.
    """
    given = _GIVEN.search(command)
    if given:
        return given[1]
    assigned = [
        *_assigned_in(env),
        *((one["name"], one["value"]) for one in _ASSIGNED.finditer(command)),
    ]
    said = [(name, value) for name, value in assigned if value != _ALL]
    values = [value for choice in CHOICES for name, value in said if name == choice]
    return None if not values else "" if values[0] in _NONE else values[0]


def _assigned_in(env: Sequence[str]) -> Iterator[tuple[str, str]]:
    for entry in env:
        name, equals, value = entry.partition("=")
        if equals and name in CHOICES:
            yield name, value.strip()
