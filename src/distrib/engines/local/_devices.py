"""
This machine's processors and CUDA devices, and who gets which.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence

from ..._processors import cpu_count
from ...errors import UnsupportedError

__all__ = ["DEVICES_VARIABLE", "THREADS_VARIABLE", "cpu_count", "cuda_devices", "deal_devices", "threads"]

#: Read by OpenMP, and by what is built on it: MKL, OpenBLAS, torch, scikit-learn.
THREADS_VARIABLE = "OMP_NUM_THREADS"
DEVICES_VARIABLE = "CUDA_VISIBLE_DEVICES"
_DRIVER = "/proc/driver/nvidia/gpus"


def cuda_devices(environment: Mapping[str, str]) -> list[str]:
    """
    The CUDA devices that replicas may be given, by the names that ``CUDA_VISIBLE_DEVICES`` takes.
    """
    given = environment.get(DEVICES_VARIABLE)
    if given is not None:
        names = [name.strip() for name in given.split(",")]
        # CUDA itself stops reading at the first one that is none.
        end = next((at for at, name in enumerate(names) if name in ("", "-1")), len(names))
        return names[:end]
    try:
        return [str(index) for index in range(len(os.listdir(_DRIVER)))]
    except OSError:
        return []


def threads(cpu: float | None, replicas: int, available: int) -> int:
    """
    The CPU threads of one replica: what it requests, else an equal share of the machine.
    """
    return max(1, math.ceil(cpu) if cpu is not None else available // replicas)


def deal_devices(wanted: Sequence[tuple[str, int]], devices: Sequence[str]) -> dict[str, str]:
    """
    Give each replica its own CUDA devices.

    Where any replica asks for some, those that ask for none get none; where nobody asks, nothing is said.

    Args:
        wanted: Names of replicas and how many devices each wants.

        devices: What there is.

    Returns:
        For each replica the value of ``CUDA_VISIBLE_DEVICES``.

    Raises:
        UnsupportedError: There are fewer than wanted.
    """
    total = sum(count for _, count in wanted)
    if total == 0:
        return {}
    if total > len(devices):
        raise UnsupportedError(
            f"requests.gpu: the job asks for {total} CUDA devices and this machine offers {len(devices)}"
            f"{' (' + ', '.join(devices) + ')' if devices else ''}. Ask for fewer, use fewer replicas, or set gpu=0.",
            field="requests.gpu",
        )
    rest = iter(devices)
    return {name: ",".join(next(rest) for _ in range(count)) or "-1" for name, count in wanted}
