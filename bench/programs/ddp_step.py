"""
What every rank does, whoever has started it: join the group, and reduce the gradients of one step.
"""

import os
import time


def step() -> float:
    """
    When the first all-reduce was done, by the clock that all processes share.
    """
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    dist.init_process_group("gloo")
    model = DistributedDataParallel(torch.nn.Linear(64, 10))
    model(torch.zeros(8, 64)).sum().backward()
    done = time.monotonic()
    dist.destroy_process_group()
    return done


if __name__ == "__main__":
    # One write: the ranks share the terminal.
    print(f"{step()}\n", end="", flush=True)
    # PyTorch 2.15 sometimes aborts while the interpreter tears its modules down.
    os._exit(0)
