"""
What PyTorch training code calls: :func:`process_group` and :func:`device`.

Only this module of ``distrib`` imports PyTorch for its users, and only when one of its functions is called.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from distrib import _report
from distrib._cluster import replica
from distrib.backends.pytorch import Elastic
from distrib.errors import DistribError, EngineError

if TYPE_CHECKING:
    import torch

__all__ = ["Elastic", "device", "process_group"]

#: What ``torch.distributed`` finds its place by.
_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@contextmanager
def process_group(backend: str | None = None, **settings: Any) -> Iterator[torch.device]:
    """
    The processes of this run as PyTorch's default group, from the first line of a ``with`` block to its end.

    The process is pinned to its device, which is what the block is given. A block that raises leaves the group when its process
    ends: so the process that failed is heard before those that miss it. Outside of any run it is a group of one, so that
    training functions can be called and tested as they are.

    .. doctest::
        :skipif: True

        >>> import torch.distributed as dist
        >>> from distrib.pytorch import process_group
        >>> with process_group() as device:
        ...     dist.get_rank(), dist.get_world_size(), device.type
        (0, 1, 'cpu')

    Args:
        backend: ``"nccl"``, ``"gloo"``, or any other that ``init_process_group`` takes. By itself NCCL where there are GPUs,
            else Gloo.

        settings: More keywords of ``init_process_group``, such as ``timeout``.

    Yields:
        The device of :func:`device`.

    Raises:
        DistribError: The run has several processes and this one cannot know its place, or the group exists already.

        EngineError: The processes did not meet; the cause is PyTorch's own error. What PyTorch raises for a *backend* or a
            setting that it does not know is raised as it is.
    """
    import torch.distributed as dist

    if _Abandoned.group:
        _leave()
    if dist.is_initialized():
        raise DistribError("process_group(): this process is in a process group already. Open it once, or leave out init_process_group().")
    place = _place()
    mine = device()
    chosen = backend or ("nccl" if mine.type == "cuda" and dist.is_nccl_available() else "gloo")
    if mine.type == "cuda":
        import torch

        torch.cuda.set_device(mine)
    _join(chosen, place, settings)
    try:
        yield mine
    except BaseException:
        # Peers would notice at once, and fail before this process has said why; and waiting for them may take for ever.
        _Abandoned.group = place is not None and place["WORLD_SIZE"] != "1"
        if not _Abandoned.group:
            _leave()
        raise
    _leave()


class _Abandoned:
    """
    Whether this process has left a group by an exception, and not yet told its peers.
    """

    group = False


def device() -> torch.device:
    """
    The device of this process: of the GPUs that its node has, the one of its ``LOCAL_RANK``; else the CPU.

    >>> device().type  # doctest: +SKIP
    'cpu'
    """
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if count == 0:
        return torch.device("cpu")
    if local_rank >= count:
        raise DistribError(
            f"device(): the process of local rank {local_rank} has no GPU of its own; its node has {count}. "
            f"Use nproc_per_node={count} at most, or nproc_per_node='gpu'."
        )
    return torch.device("cuda", local_rank)


def _place() -> dict[str, str] | None:
    """
    What the environment says of this process's place; None for the only process of a world of one.
    """
    found = {name: os.environ[name] for name in _VARIABLES if os.environ.get(name)}
    missing = [name for name in _VARIABLES if name not in found]
    if not missing:
        rank, world = found["RANK"], found["WORLD_SIZE"]
        if not (rank.isdecimal() and world.isdecimal() and int(rank) < int(world)):
            raise DistribError(f"process_group(): RANK={rank} and WORLD_SIZE={world} are no place; ranks go from 0 to WORLD_SIZE - 1.")
        return found
    expected = replica().world_size
    if found or expected > 1:
        among = f"one of {expected} replicas" if expected > 1 else f"one of several processes ({', '.join(found)} set)"
        raise DistribError(
            f"process_group(): this process is {among}, but {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set, "
            f"so it cannot find the others. Was it started without the framework's operator, or its environment cleared?"
        )
    return None


def _join(backend: str, place: dict[str, str] | None, settings: dict[str, Any]) -> None:
    import torch.distributed as dist

    if place is None:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, **settings)
        return
    if os.environ.get("LOCAL_RANK", "0") == "0":
        _report.progress(f"waiting for the group of {place['WORLD_SIZE']}")
    try:
        dist.init_process_group(backend, **settings)
    except (dist.DistError, RuntimeError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        where = f"{place['MASTER_ADDR']}:{place['MASTER_PORT']}"
        raise EngineError(f"rank {place['RANK']} of {place['WORLD_SIZE']} cannot join the group at {where}: {first}") from error


def _leave() -> None:
    import torch.distributed as dist

    _Abandoned.group = False
    if dist.is_initialized():
        dist.destroy_process_group()
