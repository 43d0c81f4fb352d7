"""
Other processes, other environments.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .._cluster import ClusterSpec
    from ..backend import Backend


def elsewhere(backend: Backend, clusters: Sequence[ClusterSpec], *, seed: int = 0) -> dict[str, Any]:
    """
    What a fresh interpreter makes of *clusters*, and which modules it has imported for that.

    Raises:
        RuntimeError: It has failed; the message has its last words.
    """
    import cloudpickle

    code = "import sys; sys.path[:] = sys.argv.pop().split('\\n'); from distrib.testing._calls import answer; answer()"
    done = subprocess.run(
        [sys.executable, "-c", code, "\n".join(sys.path)],
        input=cloudpickle.dumps((backend, list(clusters))),
        env={**os.environ, "PYTHONHASHSEED": str(seed)},
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise RuntimeError(f"in another process: {said[-1] if said else f'exit code {done.returncode}'}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@contextmanager
def with_variables(variables: Mapping[str, str]) -> Iterator[None]:
    """
    Have these variables in the environment of this process for a while.
    """
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            os.environ.pop(name)
            if name in before:
                os.environ[name] = before[name]
