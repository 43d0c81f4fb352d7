"""
What holds on every engine: what is refused before anything is started, and whose end is that of the run.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .._cluster import REPLICA_VARIABLE, Replica
from .._report import NAME_VARIABLE
from ..errors import InvalidJobError, SubmitError

if TYPE_CHECKING:
    from .._job import Job
    from ..engine import Call

__all__ = ["LONGEST_VARIABLE", "check_lengths", "check_outside", "deciders", "length_of"]

#: Linux takes no longer string than this for a variable, its name, ``=`` and end included (MAX_ARG_STRLEN).
LONGEST_VARIABLE = 131_072


def check_outside(call: Call[Any]) -> None:
    """
    Refuse to start a run from within one.

    Raises:
        SubmitError: This process is a replica.
    """
    if REPLICA_VARIABLE in os.environ:
        me = os.environ.get(NAME_VARIABLE, "a replica")
        raise SubmitError(
            f"{call.name}() was called within {me} of a run: a replica cannot start a run of its own. "
            f"To run the plain function there, call {call.name}.function(...)."
        )


def length_of(name: str, value: str) -> int:
    """
    How many bytes a variable takes in the environment.
    """
    return len(os.fsencode(name)) + len(os.fsencode(value)) + 2


def check_lengths(environment: Mapping[str, str], of: Replica, *, more: int = 0, remedy: str = "Use fewer replicas.") -> None:
    """
    Refuse so many replicas that what one of them has to know of the others is no variable any more.

    Args:
        environment: The variables of the replica.

        of: The replica.

        more: How much longer the variables may get.

        remedy: What to do instead.

    Raises:
        InvalidJobError: Names the variable that would be too long.
    """
    for name, value in environment.items():
        length = length_of(name, value) + more
        if length > LONGEST_VARIABLE:
            raise InvalidJobError(
                f"{name} of {of.name} would have {length:,} bytes with {of.world_size:,} replicas; "
                f"the system takes {LONGEST_VARIABLE:,}. {remedy}",
                field=name,
                value=length,
            )


def deciders(job: Job, replicas: Iterable[Replica], coordinator: Replica) -> tuple[str, ...]:
    """
    The names of the replicas that must return for the run to succeed.
    """
    # Where any of them may be lost, no single one can decide.
    if job.run_policy.success_policy == "" and job.backend.needed(job) is None:
        return (coordinator.name,)
    return tuple(each.name for each in replicas if each.role == coordinator.role)
