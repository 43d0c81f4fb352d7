"""
What the configurations of all plugins are made of.

They are dataclasses that can be changed, and not the frozen values of the rest of this package, because those of the plugins
are: code that sets a field, calls ``dataclasses.replace`` or adds a field in a subclass goes on working.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar

from . import _registration
from ._convert import converted, group_of, lacks_workers, run_policy_of
from ._resources import Amounts

if TYPE_CHECKING:
    from typing_extensions import Self

    from distrib._job import Job

__all__ = ["CleanPodPolicy", "Config", "Group", "Replicas", "RestartPolicy", "RunPolicy", "Worker"]


class RestartPolicy(Enum):
    """
    When a replica that has ended is started again. The values are those of Flyte's protocol.
    """

    ALWAYS = 2
    FAILURE = 1
    #: As the plugins' documentation writes it.
    ON_FAILURE = 1  # noqa: PIE796 - two spellings of one word
    NEVER = 0


class CleanPodPolicy(Enum):
    """
    Which pods are removed when the job is finished. The values are those of Flyte's protocol.
    """

    NONE = 0
    ALL = 2
    RUNNING = 1


@dataclass
class RunPolicy:
    """
    What becomes of a run: when it is over, when it is tried again, and what is left of it.

    Args:
        clean_pod_policy: Which pods are removed when the job is finished; None: those that still run.

        ttl_seconds_after_finished: How long a finished job is kept, in seconds; None keeps it.

        active_deadline_seconds: How long it may take, in seconds, 1 or more; None for any time.

        backoff_limit: How often replicas may be started again, in all; None sets no limit.

    .. doctest::

        >>> from distrib.compat.kftensorflow import CleanPodPolicy, RunPolicy
        >>> RunPolicy(CleanPodPolicy.ALL, backoff_limit=3).backoff_limit
        3
    """

    clean_pod_policy: CleanPodPolicy | None = None
    ttl_seconds_after_finished: int | None = None
    active_deadline_seconds: int | None = None
    backoff_limit: int | None = None

    def __post_init__(self) -> None:
        run_policy_of(self)


class Group:
    """
    What the groups of all roles have in common: what is wrong with one is said where it is written.
    """

    def __post_init__(self) -> None:
        group_of(type(self).__name__.lower(), self)


@dataclass
class Replicas(Group):
    """
    A group that says how many replicas it has.
    """

    image: Any = None
    requests: Amounts = None
    limits: Amounts = None
    replicas: int | None = None
    restart_policy: RestartPolicy | None = None


class Worker(Replicas):
    """
    The workers, which train.

    Args:
        image: Their container image; None for the task's.

        requests: What each is sure to be given: flytekit's ``Resources``; None for the task's.

        limits: What each may use at most; None for the task's.

        replicas: How many.

        restart_policy: When one that has ended is started again; None for never.
    """


class Config:
    """
    What the plugins call a task's config: what is wrong with it is said where it is written.
    """

    #: The name of the class of its tasks.
    task_class: ClassVar[str]
    #: Deprecated field -> what to write instead.
    replacements: ClassVar[Mapping[str, str]] = {}

    def __new__(cls, *_args: Any, **_fields: Any) -> Self:
        # Not with the class: whoever has a class of tasks for a subclass registers it after that.
        _registration.register(cls, cls.task_class)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for old, replacement in self.replacements.items():
            if getattr(self, old) is not None:
                text = f"{type(self).__name__}({old}=) is deprecated; write {replacement} instead."
                # Above this function is the __init__ that dataclasses writes.
                warnings.warn(text, DeprecationWarning, stacklevel=3)
        # How many workers there are may still be set, until a task is made of it.
        if not lacks_workers(self):
            converted(self)

    def to_job(self) -> Job:
        """
        The same as a :class:`distrib.Job`.

        Raises:
            InvalidJobError: Something in it is wrong; the message names the field, the value and the remedy.
        """
        return converted(self)
