"""
From a plan to a run: the objects are created one by one, and all of them taken back if one is refused.
"""

from __future__ import annotations

import base64
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from ...errors import EngineError, SubmitError
from .._rules import check_outside
from ._about import about_of, annotate
from ._client import ApiError, Client, UnreachableError
from ._kinds import JOBS, SECRETS, SERVICES, TRAINING_RUNTIMES, Kind
from ._plan import render, secret
from ._run import KubernetesRun

if TYPE_CHECKING:
    from ._plan import KubernetesPlan, Rendered

R = TypeVar("R")

_NAMES = 5
#: What the Trainer's webhook says of a runtime that it has not heard of yet: it looks it up in a copy of what the API server has.
_NOT_YET = "must be created before the TrainJob"
#: Seconds after which it is asked again.
_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
#: What else than its top object a run may consist of.
_BESIDE = {each.kind: each for each in (SECRETS, SERVICES, JOBS, TRAINING_RUNTIMES)}
_ROLE = (
    "Have a Role granted that may create, patch and delete secrets and jobs or the operator's kind, create and delete services, list and "
    "watch pods and the workload, and get pods/log."
)
#: What a refusal says -> what to do about it; the first that fits.
_REMEDIES = (
    ("exceeded quota", "Ask for less, wait for other runs to end, or have the namespace's quota raised."),
    ("violates podsecurity", "Leave security_context as it is by default, or use a namespace that allows it."),
    ("namespaces ", "Create the namespace, or name another one with kubernetes={'namespace': …}."),
    ("failed calling webhook", "The controller that looks at such objects does not answer: is it running?"),
    ("request is too large", "Let large arguments and code go through a storage: kubernetes={'storage': 's3://…'}."),
    ("too long", "Let large arguments and code go through a storage: kubernetes={'storage': 's3://…'}."),
    ("could not find the requested resource", "Its controller is not installed in the cluster; kubernetes={'workload': 'job'} needs none."),
    ("unknown field", "A slip in pod_patch, affinity or security_context, or the cluster is too old to know it."),
    ("cannot create resource", _ROLE),
    ("cannot patch resource", _ROLE),
    ("denied the request", "An admission webhook of the cluster does not allow it."),
)


def submit(client: Client, plan: KubernetesPlan[R]) -> KubernetesRun[R]:
    """
    Create the objects of *plan* under a name of their own.

    Raises:
        SubmitError: One was refused; nothing is left of the others.
    """
    check_outside(plan.call)
    for _ in range(_NAMES):
        rendered = render(plan, f"{plan.name}-{_digits()}")
        annotate(rendered, plan)
        creation = _Creation(client, plan, rendered)
        try:
            owner = creation.create()
        except _TakenError:
            continue
        about = about_of(owner)
        assert about is not None  # noqa: S101  # it has just been written
        run: KubernetesRun[R] = KubernetesRun(client, about, creation.kind_of(rendered.owner), echo=plan.options.echo)
        run.follow()
        return run
    raise SubmitError(f"{_NAMES} names for the run were all taken; set name= to another one than {plan.name!r}.")


def _digits() -> str:
    return os.urandom(3).hex()


class _TakenError(Exception):
    """
    Somebody has an object of that name.
    """


class _Creation:
    """
    The steps of one submission, and the way back.
    """

    def __init__(self, client: Client, plan: KubernetesPlan[Any], rendered: Rendered) -> None:
        self._client = client
        self._plan = plan
        self._rendered = rendered
        self._namespace = plan.options.namespace
        self._created: list[tuple[Kind, str]] = []

    def create(self) -> dict[str, Any]:
        """
        Create all; the object that owns the others.
        """
        try:
            return self._create()
        except ApiError as error:
            self._take_back()
            if error.is_taken:
                raise _TakenError from error
            raise SubmitError(_explain(error)) from error
        except UnreachableError as error:
            self._take_back()
            raise SubmitError(f"{error}. Nothing was started, as far as can be told.") from error
        except BaseException:
            self._take_back()
            raise

    def _create(self) -> dict[str, Any]:
        from ._payload import pack

        rendered = self._rendered
        data = pack(self._plan.call, self._plan.job, rendered.orders)
        encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
        before: list[tuple[Kind, str]] = []
        owner: dict[str, Any] | None = None
        for each in [secret(rendered.name, self._namespace, encoded), *rendered.objects]:
            kind, name = self.kind_of(each), each["metadata"]["name"]
            if owner is not None:
                each["metadata"]["ownerReferences"] = [_reference(owner)]
            made = self._create_one(kind, name, each)
            if each is rendered.owner:
                owner = made
            elif owner is None:
                before.append((kind, name))
        assert owner is not None  # noqa: S101  # it is one of the objects
        for kind, name in before:
            self._client.patch(kind, self._namespace, name, {"metadata": {"ownerReferences": [_reference(owner)]}})
        return owner

    def _create_one(self, kind: Kind, name: str, data: dict[str, Any]) -> dict[str, Any]:
        try:
            made = self._send(kind, data)
        except ApiError:  # it is refused, or somebody else's
            raise
        except BaseException:  # it may have been created although the answer was lost
            self._created.append((kind, name))
            raise
        self._created.append((kind, name))
        return made

    def _send(self, kind: Kind, data: dict[str, Any]) -> dict[str, Any]:
        for pause in _PAUSES:
            try:
                return self._client.create(kind, self._namespace, data)
            except ApiError as error:
                if _NOT_YET not in str(error):
                    raise
            time.sleep(pause)
        return self._client.create(kind, self._namespace, data)

    def kind_of(self, data: dict[str, Any]) -> Kind:
        """
        The kind of an object of the run.
        """
        return _BESIDE.get(data["kind"]) or self._rendered.workload.kind(self._plan.job.backend)

    def _take_back(self) -> None:
        for kind, name in reversed(self._created):
            with suppress(EngineError):
                self._client.delete(kind, self._namespace, name)


def _reference(owner: dict[str, Any]) -> dict[str, Any]:
    meta = owner["metadata"]
    return {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": meta["name"], "uid": meta["uid"]}


def _explain(error: ApiError) -> str:
    said = str(error)
    remedy = next((remedy for words, remedy in _REMEDIES if words in said.lower()), "")
    return f"{said}. {remedy} Nothing is left of the run.".replace("  ", " ").replace("..", ".")
