"""
Elastic PyTorch: a process is killed in the middle, the group starts again, and training resumes from its checkpoint.

    python examples/digits_elastic.py
"""

import os
import signal
import tempfile
from pathlib import Path

from distrib import distributed
from distrib.pytorch import Elastic


@distributed(framework="pytorch", elastic=Elastic(nproc_per_node=2, max_restarts=1))
def train(folder: Path, epochs: int = 12) -> float:
    """
    Train on two processes, one of which is killed halfway; return the accuracy on digits that were not trained on.
    """
    import torch
    import torch.distributed as dist
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from torch.nn.parallel import DistributedDataParallel

    from distrib.pytorch import process_group

    digits = load_digits()
    split = train_test_split(digits.data / 16, digits.target, test_size=300, random_state=0)
    x, x_test, y, y_test = (torch.tensor(part, dtype=torch.float32 if part.ndim > 1 else torch.int64) for part in split)
    checkpoint = folder / "checkpoint.pt"

    with process_group() as device:
        torch.manual_seed(0)
        model = DistributedDataParallel(torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)).to(device))
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        begun = 0
        if checkpoint.exists():
            saved = torch.load(checkpoint, map_location=device, weights_only=True)
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            begun = saved["epoch"] + 1
            print(f"rank {dist.get_rank()} resumes in epoch {begun + 1}")

        for epoch in range(begun, epochs):
            # The share of this process, however many there are: the world may be another one after a restart.
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))[dist.get_rank() :: dist.get_world_size()]
            for batch in order.split(32):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(x[batch].to(device)), y[batch].to(device)).backward()
                optimizer.step()
            if dist.get_rank() == 0:
                torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}, folder / "partial.pt")
                (folder / "partial.pt").replace(checkpoint)
            dist.barrier()
            if begun == 0 and epoch == epochs // 2 and dist.get_rank() == 1:
                os.kill(os.getpid(), signal.SIGKILL)

        with torch.no_grad():
            right = model.module(x_test.to(device)).argmax(1).cpu() == y_test
        return float(right.float().mean())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(f"accuracy {train(Path(folder)):.3f}")
