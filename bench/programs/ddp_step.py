"""
What every rank does, whoever has started it: join the group, reduce a tensor, and train one step.
"""

import os
import time


def step() -> tuple[float, float]:
    """
    When the first all-reduce was done, and when DDP's first step, by the clock that all processes share.
    """
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    dist.init_process_group("gloo")
    dist.all_reduce(torch.ones(64))
    reduced = time.monotonic()
    model = DistributedDataParallel(torch.nn.Linear(64, 10))
    model(torch.zeros(8, 64)).sum().backward()
    done = time.monotonic()
    dist.destroy_process_group()
    return reduced, done


if __name__ == "__main__":
    # One write: the ranks share the terminal.
    reduced, stepped = step()
    print(f"{reduced} {stepped}\n", end="", flush=True)
    # PyTorch 2.15 sometimes aborts while the interpreter tears its modules down.
    os._exit(0)
