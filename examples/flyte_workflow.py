"""
A workflow of Flyte's: prepare data, train on a chief, two workers and a parameter server, evaluate.

    pyflyte run examples/flyte_workflow.py digits --epochs 8

The same file is registered on a cluster with ``pyflyte register --image ... examples/flyte_workflow.py``.
"""

# flytekit has no types of its own.
# mypy: disallow-untyped-decorators=False, warn-return-any=False

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import flytekit
from flytekit import task, workflow
from flytekit.types.file import FlyteFile

from distrib import Resources, distributed


def model_in(scope: Any) -> Any:
    """
    The model, its variables where *scope* puts them.
    """
    import keras

    with scope:
        return keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10)])


@task
def prepare(test_size: int) -> FlyteFile:
    """
    The handwritten digits, split into those to train on and those to test with.
    """
    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    parts = train_test_split(digits.data.astype("float32") / 16, digits.target, test_size=test_size, random_state=0)
    path = Path(flytekit.current_context().working_directory, "digits.npz")
    np.savez(path, **dict(zip(("x", "x_test", "y", "y_test"), parts, strict=True)))
    return FlyteFile(str(path))


@distributed(
    framework="tensorflow",
    chief=1,
    worker=2,
    ps=1,
    requests=Resources(cpu=1, memory="1Gi"),
    env={"TF_CPP_MIN_LOG_LEVEL": "2"},
    flyte={"retries": 1},
)
def train(data: FlyteFile, epochs: int, batch_size: int = 64) -> FlyteFile:
    """
    Train asynchronously; the chief's weights are what flows on.
    """
    import keras
    import numpy as np
    import tensorflow as tf

    from distrib.tensorflow import strategy

    # In the workers and the parameter server this call does not return; from here on only the chief runs.
    cluster = strategy()
    coordinator = tf.distribute.coordinator.ClusterCoordinator(cluster)
    with np.load(data.download()) as parts:
        x, y = parts["x"], parts["y"]
    model = model_in(cluster.scope())
    with cluster.scope():
        optimizer = keras.optimizers.Adam(1e-2)
        optimizer.build(model.trainable_variables)
        loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def batches() -> Any:
        return tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x)).repeat().batch(batch_size)

    def step(iterator: Any) -> None:
        def one(images: Any, labels: Any) -> None:
            with tf.GradientTape() as tape:
                loss = loss_of(labels, model(images, training=True))
            optimizer.apply_gradients(zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True))

        cluster.run(one, args=next(iterator))

    run_step = tf.function(step)
    iterator = iter(coordinator.create_per_worker_dataset(batches))
    for _ in range(epochs * (len(x) // batch_size)):
        coordinator.schedule(run_step, args=(iterator,))
    coordinator.join()

    path = Path(flytekit.current_context().working_directory, "weights.npz")
    np.savez(path, *[weight.numpy() for weight in model.trainable_variables])
    return FlyteFile(str(path))


@task
def evaluate(data: FlyteFile, weights: FlyteFile) -> float:
    """
    The accuracy on digits that were not trained on.
    """
    import numpy as np

    model = model_in(nullcontext())
    with np.load(weights.download()) as trained:
        model.set_weights(list(trained.values()))
    with np.load(data.download()) as parts:
        predicted = np.argmax(model(parts["x_test"]), axis=1)
        return float(np.mean(predicted == parts["y_test"]))


@workflow
def digits(epochs: int = 8, test_size: int = 300) -> float:
    """
    From the data to the accuracy.
    """
    data = prepare(test_size=test_size)
    return evaluate(data=data, weights=train(data=data, epochs=epochs))
