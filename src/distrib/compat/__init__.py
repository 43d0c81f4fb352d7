"""
The names of Flyte's Kubeflow plugins, so that moving over is a change of an import.

``flytekitplugins.kftensorflow`` is :mod:`distrib.compat.kftensorflow`, ``flytekitplugins.kfpytorch`` is
:mod:`distrib.compat.kfpytorch`; the modules ``task`` inside of them are there too.
"""

from __future__ import annotations

__all__: list[str] = []
