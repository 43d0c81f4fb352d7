"""
PyTorch's FSDP on two processes of one node: each holds half of the model.

    python examples/digits_fsdp.py
"""

from distrib import distributed


@distributed(framework="pytorch", nproc_per_node=2)
def train(epochs: int = 15) -> float:
    """
    Train a model that is split among the processes; return the accuracy on digits that were not trained on.
    """
    import torch
    import torch.distributed as dist
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    from distrib.pytorch import process_group

    digits = load_digits()
    split = train_test_split(digits.data / 16, digits.target, test_size=300, random_state=0)
    x, x_test, y, y_test = (torch.tensor(part, dtype=torch.float32 if part.ndim > 1 else torch.int64) for part in split)

    with process_group() as device:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)).to(device)
        fully_shard(model, mesh=init_device_mesh(device.type, (dist.get_world_size(),)))
        held = sum(parameter.to_local().numel() for parameter in model.parameters())
        whole = sum(parameter.numel() for parameter in model.parameters())
        print(f"rank {dist.get_rank()} holds {held} of {whole} parameters")
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        for epoch in range(epochs):
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
            # As many steps for every process: they gather the parameters together.
            share = order[: len(order) // dist.get_world_size() * dist.get_world_size()][dist.get_rank() :: dist.get_world_size()]
            for batch in share.split(32):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(x[batch].to(device)), y[batch].to(device)).backward()
                optimizer.step()
        with torch.no_grad():
            right = model(x_test.to(device)).argmax(1).cpu() == y_test
        return float(right.float().mean())


if __name__ == "__main__":
    print(f"accuracy {train():.3f}")
