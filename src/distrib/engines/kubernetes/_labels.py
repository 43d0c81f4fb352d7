"""
How objects of ours are recognised.
"""

from __future__ import annotations

from typing import Final

#: On every object and pod of a run: the run's name.
RUN_LABEL: Final = "distrib.dev/run"
#: On every pod: its role.
ROLE_LABEL: Final = "distrib.dev/role"
#: On the object that owns the others: JSON, see ``_about``.
ABOUT_ANNOTATION: Final = "distrib.dev/about"
#: On the object that owns the others: the queue that Kueue admits it from.
QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"
#: Prefixes of the labels that controllers set on pods, and that nobody else may.
RESERVED_PREFIXES: Final = (
    "distrib.dev/",
    "training.kubeflow.org/",
    "trainer.kubeflow.org/",
    "jobset.sigs.k8s.io/",
    "batch.kubernetes.io/",
)
#: Older names of the labels that the Job controller sets.
RESERVED_LABELS: Final = ("controller-uid", "job-name")
