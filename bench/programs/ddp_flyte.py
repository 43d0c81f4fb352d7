"""
Two DDP ranks with the Flyte plugin's Elastic, in its local execution: the moment of the call, and
those of the first all-reduce and the first step.
"""

import sys
import time

from ddp_step import step  # type: ignore[import-not-found]  # it is beside this program
from flytekit import task
from flytekitplugins.kfpytorch import Elastic


@task(task_config=Elastic(nnodes=1, nproc_per_node=2, start_method=sys.argv[1]))  # type: ignore[untyped-decorator]
def train() -> tuple[float, float]:
    """
    One step.
    """
    reduced, stepped = step()
    return float(reduced), float(stepped)


if __name__ == "__main__":
    called = time.monotonic()
    print(called, *train())
