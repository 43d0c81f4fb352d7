"""
Two workers train; an evaluator beside them follows their checkpoints, and ends when the last one is evaluated.

    python examples/digits_evaluator.py
"""

import tempfile
import time
from pathlib import Path
from typing import Any

from distrib import distributed, replica

EPOCHS = 5


@distributed(framework="tensorflow", worker=2, evaluator=1, env={"TF_CPP_MIN_LOG_LEVEL": "2"}, local={"grace_period": 60})
def train(folder: str) -> list[float]:
    """
    Train, or evaluate: return the accuracy after each epoch as the evaluator saw it.

    Args:
        folder: Seen by all replicas; takes the checkpoints.
    """
    import keras
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    from distrib.tensorflow import strategy

    digits = load_digits()
    x, x_test, y, y_test = train_test_split(digits.data / 16, digits.target, test_size=300, random_state=0)

    if replica().role == "evaluator":
        return follow(Path(folder), x_test, y_test)

    with strategy().scope():
        model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10)])
        model.compile(
            optimizer=keras.optimizers.Adam(1e-2),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )

    save = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, _: checkpoint(model, Path(folder), epoch))
    model.fit(x, y, batch_size=64, epochs=EPOCHS, verbose=0, callbacks=[save])
    return []


def checkpoint(model: Any, folder: Path, epoch: int) -> None:
    """
    Write the model down, once for all workers, and under its name only when it is complete.
    """
    if replica().is_coordinator:
        unfinished = folder / f"unfinished-{epoch}.keras"
        model.save(unfinished)
        unfinished.rename(folder / f"epoch-{epoch}.keras")


def follow(folder: Path, x: Any, y: Any) -> list[float]:
    """
    Evaluate each checkpoint when it appears, up to the one of the last epoch.
    """
    import keras

    accuracies = []
    for epoch in range(EPOCHS):
        path = folder / f"epoch-{epoch}.keras"
        while not path.exists():
            time.sleep(0.1)
        _, accuracy = keras.models.load_model(path).evaluate(x, y, verbose=0)
        print(f"epoch {epoch + 1}: accuracy {accuracy:.3f}")
        accuracies.append(float(accuracy))
    return accuracies


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as checkpoints:
        run = train.submit(checkpoints)
        print(f"accuracy {run.results()['evaluator'][0][-1]:.3f}")
