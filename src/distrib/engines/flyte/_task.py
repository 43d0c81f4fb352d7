"""
The task of Flyte that a job is: flytekit imports this module, nothing else may before flytekit is there.

Registered for :class:`~distrib.Job`, so that ``@task(task_config=Job(...))`` makes one too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flytekit.configuration import SerializationSettings
from flytekit.core.context_manager import ExecutionState, FlyteContextManager
from flytekit.core.python_function_task import PythonFunctionTask
from flytekit.core.resources import Resources, ResourceSpec, construct_extended_resources
from flytekit.extend import TaskPlugins

from ..._job import Job
from ..._refusal import refuse
from ...errors import InvalidJobError, UnsupportedError
from . import _late, _resources
from ._resolver import resolver_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ...backend import FlyteTask

__all__ = ["DistributedFlyteTask", "register"]


class DistributedFlyteTask(PythonFunctionTask):  # type: ignore[misc]
    """
    A Flyte task whose function runs as the replicas of a job, wherever Flyte runs it.
    """

    #: How code that must not import this module recognises a task.
    __distrib_task__ = True

    def __init__(self, task_config: Any, task_function: Callable[..., Any], **keywords: Any) -> None:
        for name in ("requests", "limits", "resources"):
            keywords[name] = _resources.as_texts(keywords.get(name))
        _check_said_once(self._job_of(task_config), keywords)
        super().__init__(task_config, task_function, **keywords)

    @staticmethod
    def _job_of(config: Any) -> Job:
        """
        The job that a task config is, or stands for.
        """
        if isinstance(config, Job):
            return config
        job: Job = config.to_job()
        return job

    @property
    def _task_config(self) -> Any:
        return self.__dict__["_task_config"]

    @_task_config.setter
    def _task_config(self, config: Any) -> None:
        # flytekit's with_overrides() would change the task of all workflows, and none of its pods, which read the job from the module.
        if "_task_config" in self.__dict__:
            raise InvalidJobError(
                "task_config: the pods of a task have the one that it was made with. Make another task of the function at the top of the "
                "module, as in wider = train.options(worker=8) or wider = task(task_config=...)(train.task_function), and call that.",
                field="task_config",
                value=config,
            )
        self.__dict__["_task_config"] = config

    @property
    def job(self) -> Job:
        """
        What is to run.
        """
        return self._job_of(self.task_config)

    @property
    def function(self) -> Callable[..., Any]:
        """
        The plain function.
        """
        function: Callable[..., Any] = self._task_function
        return function

    # What Flyte is told

    def _wire(self) -> FlyteTask:
        job = _resources.with_resources(self.job, self._resources)
        return job.backend.flyte_task(job)

    @property
    def task_type(self) -> str:
        """
        The type that Flyte's own plug-in is found by.
        """
        wire = self._wire_if_any()
        return str(self._task_type) if wire is None else wire.type

    @property
    def task_type_version(self) -> int:
        """
        The version of what :meth:`get_custom` gives.
        """
        wire = self._wire_if_any()
        return 0 if wire is None else wire.version

    def _wire_if_any(self) -> FlyteTask | None:
        # flytekit asks for the type of what it runs on this machine too; get_custom() refuses what cannot be registered.
        try:
            return self._wire()
        except UnsupportedError:
            return None

    def _is_ordinary(self) -> bool:
        """
        Whether Flyte runs it by itself, as one pod.
        """
        wire = self._wire_if_any()
        return wire is not None and not wire.custom

    def _whole(self) -> Job:
        """
        The job, its image and resources those of the task as a whole: of an ordinary task, those of its only group.
        """
        job = self.job
        if not self._is_ordinary():
            return job
        role, filled = job.groups[0].role, _resources.with_resources(job, self._resources)
        requests, limits = filled.resources_requests(role), filled.resources_limits(role)
        return job.evolve(image=job.image_of(role), requests=requests, limits=limits)

    def get_custom(self, settings: SerializationSettings) -> dict[str, Any] | None:
        """
        The part of the template that is the type's own.

        Raises:
            UnsupportedError: Flyte cannot be told a field of the job, or has no task type for its framework.
        """
        return _resources.with_images(self._wire().custom, settings) or None

    @property
    def container_image(self) -> Any:
        """
        The image: Flyte's own setting, or the job's.
        """
        return _resources.image_of(self._whole(), self._container_image)

    @property
    def environment(self) -> dict[str, str]:
        """
        The variables of all replicas: Flyte's own setting and the job's.
        """
        return _resources.environment_of(self.job, self._environment)

    @property
    def resources(self) -> ResourceSpec:
        """
        What each replica is given: Flyte's own setting, or the job's.
        """
        own = ResourceSpec(Resources(), Resources()) if self._is_ordinary() else self._resources
        return _resource_spec(self._whole(), own)

    def get_extended_resources(self, settings: SerializationSettings) -> Any:  # noqa: ARG002  # flytekit decides
        """
        The accelerator, and the shared memory.
        """
        shared_memory = _resources.shared_memory_of(self.job, self.shared_memory)
        return construct_extended_resources(accelerator=self.accelerator, shared_memory=shared_memory)

    @property
    def name(self) -> str:
        """
        What Flyte calls the task: its module, and its function or, where that has another task, its variable.
        """
        own = resolver_for(self)
        return super().name if own is None else ".".join(own.place(self))

    @property
    def task_resolver(self) -> Any:
        """
        How a pod finds the task.
        """
        return resolver_for(self) or self._task_resolver

    # What Flyte runs

    def execute(self, **inputs: Any) -> Any:
        """
        In a pod: as the replica that the pod is. Anywhere else: all replicas, on this machine.
        """
        if self.execution_mode != self.ExecutionBehavior.DEFAULT:
            return super().execute(**inputs)
        state = FlyteContextManager.current_context().execution_state
        if state is not None and state.mode == ExecutionState.Mode.TASK_EXECUTION:
            from ._pod import run_in_pod

            return run_in_pod(self, inputs)
        return self._run_here(inputs)

    def _run_here(self, inputs: Mapping[str, Any]) -> Any:
        from ._locally import run_locally

        return run_locally(self, inputs)


def _check_said_once(job: Job, keywords: dict[str, Any]) -> None:
    """
    Refuse what the job and the keywords of the task say differently, before there is a task.
    """
    if job.engine_options.get("flyte") and not _late.task_becoming():
        name = next(iter(job.engine_options["flyte"]))
        raise InvalidJobError(f"flyte.{name}: the task has keywords of its own; write @task({name}=...).", field=f"flyte.{name}")
    _resources.image_of(job, keywords.get("container_image"))
    _resources.environment_of(job, keywords.get("environment") or {})
    shared_memory = _resources.shared_memory_of(job, keywords.get("shared_memory"))
    if shared_memory and _resources.mounts_shared_memory(keywords.get("pod_template")):
        raise refuse("flyte.shared_memory", shared_memory, "the pod template has a volume at /dev/shm too; leave one of them out.")
    for name in ("requests", "limits"):
        for given in (name, "resources"):
            if keywords.get(given) is not None and _resources.to_flyte(getattr(job, name), name) is not None:
                raise InvalidJobError(
                    f"flyte.{given}={keywords[given]!r}: {name}= of the job says something too; write it once.", field=f"flyte.{given}"
                )


def _resource_spec(job: Job, own: ResourceSpec) -> ResourceSpec:
    found = {}
    for name in ("requests", "limits"):
        given = getattr(own, name)
        found[name] = given if given != Resources() else _resources.to_flyte(getattr(job, name), name) or given
    return ResourceSpec(**found)


def register(config: type = Job, task: type[DistributedFlyteTask] = DistributedFlyteTask) -> None:
    """
    Have flytekit's ``@task(task_config=...)`` make one of ours of a class of configurations.
    """
    TaskPlugins.register_pythontask_plugin(config, task)
