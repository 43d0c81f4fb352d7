"""
The models of Kubeflow's and of Kubernetes' own Python clients, as readers of what we render.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import kubernetes.client
from kubeflow.training import models as training
from kubeflow_trainer_api import models as trainer

_OPERATORS = {
    "TFJob": training.KubeflowOrgV1TFJob,
    "PyTorchJob": training.KubeflowOrgV1PyTorchJob,
    "JAXJob": training.KubeflowOrgV1JAXJob,
}
_TRAINERS = {
    "TrainJob": trainer.TrainerV1alpha1TrainJob,
    "TrainingRuntime": trainer.TrainerV1alpha1TrainingRuntime,
    "JobSet": trainer.JobsetV1alpha2JobSet,
}
_SIMPLE = {"str": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}


def written_back(manifest: Mapping[str, Any]) -> Any:
    """
    What the client of a kind of object makes of one: without what it does not know.
    """
    kind = manifest["kind"]
    if kind in _TRAINERS:
        return _without_defaults(_TRAINERS[kind].from_dict(manifest).to_dict())
    return _written(_OPERATORS.get(kind) or getattr(kubernetes.client, f"V1{kind}"), manifest)


def _without_defaults(value: Any) -> Any:
    """
    Without what the models of the Trainer write where nothing was said.
    """
    if isinstance(value, dict):
        return {name: _without_defaults(item) for name, item in value.items() if (name, item) != ("protocol", "TCP")}
    return [_without_defaults(item) for item in value] if isinstance(value, list) else value


def _written(kind: Any, value: Any) -> Any:
    """
    *value* as the tables of a client say: those of its models are the same in all versions, unlike how they are filled.
    """
    if not isinstance(kind, str):
        fields = {wire: kind.openapi_types[name] for name, wire in kind.attribute_map.items()}
        return {wire: _written(_named(fields[wire]), item) for wire, item in value.items() if wire in fields}
    if of := re.fullmatch(r"[Ll]ist\[(.*)\]", kind):
        return [_written(_named(of[1]), item) for item in value]
    if of := re.fullmatch(r"[Dd]ict[(\[]str, ?(.*)[)\]]", kind):
        return {_written("str", name): _written(_named(of[1]), item) for name, item in value.items()}
    if kind in _SIMPLE:
        # True is no number to a server.
        assert type(value) in _SIMPLE[kind], f"{value!r} is no {kind}"
    return value


def _named(kind: str) -> Any:
    return getattr(training, kind, None) or getattr(kubernetes.client, kind, None) or kind
