"""
The plugins' classes of tasks. Only :mod:`._registration` imports this module, when flytekit is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flytekit  # noqa: F401  # first, because it loads our own task

from distrib import _fields
from distrib._job import Job
from distrib._refusal import refuse
from distrib.engines.flyte._resources import mounts_shared_memory
from distrib.engines.flyte._task import DistributedFlyteTask
from distrib.errors import ReplicaFailedError

from ._convert import is_config, job_of
from ._resources import parsed

__all__ = ["PyTorchFunctionTask", "PytorchElasticFunctionTask", "TensorflowFunctionTask"]


class _PluginTask(DistributedFlyteTask):
    """
    A task with a configuration of one of the plugins.

    Without a function it is a decorator, which takes the keywords of flytekit's ``@task``.
    """

    def __new__(cls, task_config: Any = None, task_function: Callable[..., Any] | None = None, **keywords: Any) -> Any:
        if not is_config(task_config):
            raise refuse("task_config", task_config, f"{cls.__name__} needs a config of the plugin, as in task_config=TfJob(...).")
        if task_function is None:
            return partial(_decorate, cls, task_config, keywords)
        return super().__new__(cls)

    def __init__(self, task_config: Any, task_function: Callable[..., Any], **keywords: Any) -> None:
        for name in ("requests", "limits"):
            if isinstance(keywords.get(name), str):
                keywords[name] = _fields.attempt(name, _resources, keywords[name])
        if getattr(task_config, "increase_shared_mem", False) and not keywords.get("shared_memory"):
            keywords["shared_memory"] = None if mounts_shared_memory(keywords.get("pod_template")) else True
        super().__init__(task_config, task_function, **keywords)

    @staticmethod
    def _job_of(config: Any) -> Job:
        return job_of(config)

    def _run_here(self, inputs: Mapping[str, Any]) -> Any:
        """
        What the function raises is raised.
        """
        try:
            return super()._run_here(inputs)
        except ReplicaFailedError as error:
            raise self._raised(error) from error

    def _raised(self, error: ReplicaFailedError) -> BaseException:
        """
        What the plugin raises when the function has raised.
        """
        return error.__cause__ or error


class TensorflowFunctionTask(_PluginTask):
    """
    The task of a ``TfJob``: what ``@task(task_config=TfJob(...))`` makes, and a decorator of its own.

    Args:
        task_config: The config.

        task_function: The function; without one this is a decorator.

        keywords: Those of flytekit's ``@task``. Resources may be texts, as in ``requests="cpu=2,mem=4Gi"``.

    .. doctest::

        >>> from distrib.compat.kftensorflow import TensorflowFunctionTask, TfJob, Worker
        >>> @TensorflowFunctionTask(task_config=TfJob(worker=Worker(replicas=2)), retries=1)
        ... def train(epochs: int) -> None: ...
        >>> train.task_type, train.metadata.retries, train.job
        ('tensorflow', 1, Job('tensorflow', worker=2))
    """


class PyTorchFunctionTask(_PluginTask):
    """
    The task of a ``PyTorch``; its arguments are those of :class:`~distrib.compat.kftensorflow.TensorflowFunctionTask`.

    .. doctest::

        >>> from flytekit import task
        >>> from distrib.compat.kfpytorch import PyTorch, Worker
        >>> @task(task_config=PyTorch(worker=Worker(replicas=2)), shared_memory="2Gi")
        ... def train(epochs: int) -> None: ...
        >>> train
        <distrib.compat._tasks.PyTorchFunctionTask object at ...>
    """


class PytorchElasticFunctionTask(_PluginTask):
    """
    The task of an ``Elastic``; its arguments are those of :class:`~distrib.compat.kftensorflow.TensorflowFunctionTask`.

    .. doctest::

        >>> from flytekit import task
        >>> from distrib.compat.kfpytorch import Elastic
        >>> @task(task_config=Elastic(nnodes="1:2", nproc_per_node=4))
        ... def train(epochs: int) -> None: ...
        >>> train.min_nodes, train.max_nodes
        (1, 2)
    """

    #: How nodes find each other.
    rdzv_backend = "c10d"

    def _raised(self, error: ReplicaFailedError) -> BaseException:
        from flytekit.exceptions.user import FlyteRecoverableException, FlyteUserRuntimeException

        cause = error.__cause__
        raised: BaseException = (
            FlyteRecoverableException(str(error))
            if isinstance(cause, FlyteRecoverableException)
            else FlyteUserRuntimeException(cause if isinstance(cause, Exception) else error)
        )
        return raised

    @property
    def min_nodes(self) -> int:
        """
        The fewest nodes.
        """
        return _fields.nodes(self.task_config.nnodes)[0]

    @property
    def max_nodes(self) -> int:
        """
        The most nodes.
        """
        return _fields.nodes(self.task_config.nnodes)[1]


def _decorate(cls: type[_PluginTask], config: Any, keywords: Mapping[str, Any], function: Callable[..., Any]) -> Any:
    from flytekit import task
    from flytekit.extend import TaskPlugins

    if TaskPlugins.find_pythontask_plugin(type(config)) is cls:
        return task(task_config=config, **keywords)(function)
    # A class of somebody's own, which flytekit does not know.
    return cls(config, function, **keywords)


def _resources(text: str) -> Any:
    from flytekit import Resources

    return Resources(**parsed(text))
