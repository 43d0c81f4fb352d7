"""
Two DDP ranks with distrib: the moment of the call, and those of the first all-reduce and the first step.
"""

import time

from ddp_step import step  # type: ignore[import-not-found]  # it is beside this program

from distrib import distributed


@distributed(framework="pytorch", worker=2)
def train() -> tuple[float, float]:
    """
    One step.
    """
    reduced, stepped = step()
    return float(reduced), float(stepped)


if __name__ == "__main__":
    called = time.monotonic()
    print(called, *train())
