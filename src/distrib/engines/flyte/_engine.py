"""
The engine: a job and a function become a task of Flyte, which Flyte itself starts.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar

import attrs

from ...engine import Call, Engine, Plan, Run
from ...errors import DistribError, InvalidJobError, MissingDependencyError, SubmitError, UnsupportedError
from ._options import FlyteOptions

if TYPE_CHECKING:
    from ..._job import Job

__all__ = ["FlyteEngine", "FlytePlan"]

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


@attrs.frozen(kw_only=True, repr=False)
class FlytePlan(Plan[R_co]):
    """
    The task that Flyte is told about.

    Args:
        job: What is to run.

        call: The function and its arguments.

        template: Flyte's ``TaskTemplate``, as plain data; the image, where the job names none, is that of the registration.
    """

    job: Job
    call: Call[R_co]
    template: Mapping[str, Any]

    def __str__(self) -> str:
        groups = ", ".join(f"{group.role}={group.replicas}" for group in self.job.groups)
        return f"{self.call.name}: a task of Flyte, {self.job.framework}, {groups}\n{json.dumps(self.template, indent=2, sort_keys=True)}"


class FlyteEngine(Engine):
    """
    Makes the task that Flyte runs. Flyte starts it: in a workflow, with ``pyflyte run``, or by a launch plan.
    """

    name: ClassVar[str] = "flyte"
    options: ClassVar[type] = FlyteOptions
    takes_objects: ClassVar[bool] = True

    def plan(self, job: Job, call: Call[R]) -> FlytePlan[R]:
        """
        The task that *job* becomes.

        Raises:
            MissingDependencyError: flytekit is not installed.

            InvalidJobError: Flyte does not take the function.
        """
        return FlytePlan(job=job, call=call, template=_template(job, call, self.options_of(job).keywords()))

    def submit(self, plan: Plan[R]) -> Run[R]:
        """
        Refuse it: Flyte registers and starts its tasks by its own tools.

        Raises:
            UnsupportedError: Always; the message says what to do instead.

            SubmitError: It is another engine's plan.
        """
        if not isinstance(plan, FlytePlan):
            raise SubmitError(f"the flyte engine has plans of its own, and this is a {type(plan).__name__}")
        return self.start(plan.job, plan.call)

    def start(self, job: Job, call: Call[R]) -> Run[R]:  # noqa: ARG002  # whatever the job
        """
        Refuse it, as :meth:`submit` does.
        """
        _refuse(call.name)

    def runs(self) -> Sequence[Run[Any]]:
        """
        None: Flyte keeps its executions itself.
        """
        return ()

    def get_run(self, id: str) -> Run[Any]:
        """
        None: Flyte keeps its executions itself.
        """
        raise LookupError(f"no run is called {id!r}: Flyte keeps its executions itself; look for it with flytectl or in Flyte's console")


def _refuse(name: str) -> NoReturn:
    raise UnsupportedError(
        f"engine='flyte': Flyte starts {name}() itself. Call it in a @workflow, or run it with `pyflyte run --remote FILE {name}`; "
        f"`pyflyte run FILE {name}` runs its replicas on this machine.",
        field="engine",
    )


def _template(job: Job, call: Call[Any], keywords: dict[str, Any]) -> dict[str, Any]:
    try:
        import flytekit
        from flytekit.configuration import Image, ImageConfig, SerializationSettings
        from flytekit.core.context_manager import FlyteEntities
        from flytekit.tools.translator import get_serializable
        from google.protobuf.json_format import MessageToDict
    except ImportError as error:
        raise MissingDependencyError(
            "engine='flyte' needs the package 'flytekit', which is not installed. Install it with: python -m pip install 'distrib[flyte]'",
            name="flytekit",
        ) from error

    # Where we are installed without entry points, flytekit has not loaded it.
    import_module("distrib._flyte")
    settings = SerializationSettings(image_config=ImageConfig(default_image=Image("default", "the-image-of-the-registration", "latest")))
    others = {name: options for name, options in job.engine_options.items() if name != "flyte"}
    entities = len(FlyteEntities.entities)
    try:
        task = flytekit.task(task_config=job.evolve(engine_options=others), **keywords)(call.function)
        template = MessageToDict(get_serializable(OrderedDict(), settings, task).to_flyte_idl())["template"]
    except DistribError:
        raise
    except Exception as error:
        raise InvalidJobError(f"{call.name}() cannot be a task of Flyte: {error}", field="function", value=call.function) from error
    finally:
        # It was made to be looked at, not to be registered.
        del FlyteEntities.entities[entities:]
    return dict(template)
