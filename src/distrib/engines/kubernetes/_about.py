"""
What another machine has to know to take up a run: the annotation of the object that owns the others.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from ._labels import ABOUT_ANNOTATION, RUN_LABEL
from ._state import Shape

if TYPE_CHECKING:
    from ._plan import KubernetesPlan, Rendered


@attrs.frozen(kw_only=True, slots=False)
class About:
    """
    A run, as its top object tells it.

    Args:
        shape: What it consists of.

        namespace: Where it runs.

        function: The name of the function.

        submitted: When, in seconds since the epoch.

        grace_period: How long the others may take to end once it is decided.

        patience: How long pods may take to start.

        clean: The clean-up policy.
    """

    shape: Shape
    namespace: str
    function: str = ""
    submitted: float = 0.0
    grace_period: float = 10.0
    patience: float = 600.0
    clean: str = "Running"

    @property
    def selector(self) -> str:
        """
        What selects all of the run's objects.
        """
        return f"{RUN_LABEL}={self.shape.run}"

    @property
    def id(self) -> str:
        """
        What :func:`distrib.get_run` takes.
        """
        return f"kubernetes://{self.namespace}/{self.shape.run}"


def annotate(rendered: Rendered, plan: KubernetesPlan[Any]) -> None:
    """
    Write what is known of the run only when it is submitted into the annotation of its top object.
    """
    orders, policy = rendered.orders, plan.job.run_policy
    annotations = rendered.owner["metadata"].setdefault("annotations", {})
    about = json.loads(annotations.get(ABOUT_ANNOTATION) or "{}")
    by_role = orders.deciders == tuple(name for name in orders.names if name.rpartition("-")[0] == orders.coordinator.rpartition("-")[0])
    more = {
        "coordinator": orders.coordinator,
        # By their role: there may be thousands.
        "deciders": None if by_role else list(orders.deciders),
        "restarts": {role: policy for role, policy in orders.restarts.items() if policy != "Never"},
        "gang": policy.restart_scope.value == "Job",
        "needed": orders.needed,
        "submitted": time.time(),
        "deadline": policy.active_deadline_seconds,
        "grace_period": orders.grace_period,
        "patience": plan.options.patience,
        "clean": policy.clean_pod_policy.value,
    }
    annotations[ABOUT_ANNOTATION] = json.dumps({**about, **more}, separators=(",", ":"))


def about_of(top: Mapping[str, Any]) -> About | None:
    """
    The run that a top object is of; None if it is none's, or of a version of distrib that wrote something else.
    """
    meta = top.get("metadata") or {}
    try:
        given = json.loads(meta["annotations"][ABOUT_ANNOTATION])
        run, namespace = meta["labels"][RUN_LABEL], meta["namespace"]
        roles = {str(role): int(count) for role, count in given["roles"].items()}
        coordinator = given["coordinator"]
        role = coordinator.rpartition("-")[0]
        shape = Shape(
            run=run,
            roles=roles,
            coordinator=coordinator,
            deciders=tuple(given["deciders"] or (f"{role}-{index}" for index in range(roles[role]))),
            restarts=given["restarts"],
            gang=given["gang"],
            needed=given["needed"],
            deadline=given["deadline"],
        )
        fields = ("submitted", "grace_period", "patience", "clean")
        return About(shape=shape, namespace=namespace, function=given["function"], **{name: given[name] for name in fields})
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
