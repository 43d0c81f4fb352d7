"""
JAX on two processes: each computes the gradient of its half of a batch, and one reduction across them adds them up.

    python examples/digits_jax.py
"""

from distrib import distributed


@distributed(framework="jax", worker=2)
def train(steps: int = 300) -> float:
    """
    Train on all processes in step; return the accuracy on digits that were not trained on.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    jax.distributed.initialize()
    digits = load_digits()
    x, x_test, y, y_test = train_test_split(digits.data.astype("float32") / 16, digits.target, test_size=300, random_state=0)

    # One mesh over the devices of all processes; a batch is split along it, the weights are the same everywhere.
    mesh = Mesh(np.array(jax.devices()), ("batch",))
    split, same = NamedSharding(mesh, PartitionSpec("batch")), NamedSharding(mesh, PartitionSpec())

    def loss_of(weights, images, labels):  # type: ignore[no-untyped-def]
        chances = jax.nn.log_softmax(images @ weights)
        return -jnp.mean(jnp.take_along_axis(chances, labels[:, None], axis=1))

    @jax.jit
    def step(weights, images, labels):  # type: ignore[no-untyped-def]
        # The mean is taken over the batches of all processes: XLA puts the reduction here.
        return weights - 1.0 * jax.grad(loss_of)(weights, images, labels)

    share = len(x) // jax.process_count()
    mine = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
    images = jax.make_array_from_process_local_data(split, x[mine])
    labels = jax.make_array_from_process_local_data(split, y[mine])
    weights = jax.device_put(jnp.zeros((64, 10)), same)
    for _ in range(steps):
        weights = step(weights, images, labels)
    right = np.argmax(x_test @ np.asarray(weights), axis=1) == y_test
    return float(right.mean())


if __name__ == "__main__":
    print(f"accuracy {train():.3f}")
