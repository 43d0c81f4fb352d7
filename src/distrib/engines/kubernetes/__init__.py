"""
The engine that runs a job as pods of a Kubernetes cluster.

Pods import modules of this package, so that importing the package itself has to cost nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._engine import KubernetesEngine as KubernetesEngine
    from ._options import KubernetesOptions as KubernetesOptions
    from ._plan import KubernetesPlan as KubernetesPlan

__all__ = ["KubernetesEngine", "KubernetesOptions", "KubernetesPlan"]

_HOMES = {"KubernetesEngine": "_engine", "KubernetesOptions": "_options", "KubernetesPlan": "_plan"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
