"""
PyTorch's ``DistributedDataParallel`` on two processes: handwritten digits, a few seconds, no download.

    python examples/digits_ddp.py
"""

from distrib import distributed


@distributed(framework="pytorch", worker=2)
def train(epochs: int = 15) -> float:
    """
    Train on all processes in step; return the accuracy on digits that were not trained on.
    """
    import torch
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from torch.nn.parallel import DistributedDataParallel
    from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

    from distrib.pytorch import process_group

    digits = load_digits()
    split = train_test_split(digits.data / 16, digits.target, test_size=300, random_state=0)
    x, x_test, y, y_test = (torch.tensor(part, dtype=torch.float32 if part.ndim > 1 else torch.int64) for part in split)

    with process_group() as device:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)).to(device)
        model = DistributedDataParallel(model)
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        data = TensorDataset(x.to(device), y.to(device))
        # Each process draws its own part of the digits.
        sampler: DistributedSampler = DistributedSampler(data)
        for epoch in range(epochs):
            sampler.set_epoch(epoch)
            for images, labels in DataLoader(data, batch_size=32, sampler=sampler):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(images), labels).backward()
                optimizer.step()
        with torch.no_grad():
            # Of the model itself: the others have the same, and need not take part.
            right = model.module(x_test.to(device)).argmax(1).cpu() == y_test
        return float(right.float().mean())


if __name__ == "__main__":
    print(f"accuracy {train():.3f}")
