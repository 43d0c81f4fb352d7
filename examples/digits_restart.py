"""
A worker is killed in the middle of training: both start again, go on from the last checkpoint, and lose nothing.

    python examples/digits_restart.py
"""

import os
import signal
import tempfile
from pathlib import Path

from distrib import RunPolicy, distributed, replica


@distributed(
    framework="tensorflow",
    # Killed by a signal, a worker is started again; after an exception of its own it is not.
    worker={"replicas": 2, "restart_policy": "ExitCode"},
    # One worker alone could not rejoin the others: they train in step, so all of them start again. On Kubernetes a JobSet or a TrainJob
    # does that: .on("kubernetes", workload="jobset").
    run_policy=RunPolicy(restart_scope="Job", backoff_limit=3),
    env={"TF_CPP_MIN_LOG_LEVEL": "2"},
)
def train(folder: str, epochs: int = 6, kill_in_epoch: int | None = None) -> tuple[float, list[int]]:
    """
    Train with a checkpoint after each epoch.

    Args:
        folder: Takes the checkpoints; still there after a restart.

        epochs: How often to go through the data.

        kill_in_epoch: When worker 1 is to be killed, once.

    Returns:
        The accuracy on digits that were not trained on, and the epochs that this attempt ran.
    """
    import keras
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    from distrib.tensorflow import strategy

    digits = load_digits()
    x, x_test, y, y_test = train_test_split(digits.data / 16, digits.target, test_size=300, random_state=0)

    with strategy().scope():
        model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10)])
        model.compile(
            optimizer=keras.optimizers.Adam(1e-2),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )

    def die_once(epoch: int, _: object) -> None:
        died = Path(folder, "died")
        if replica().name == "worker-1" and epoch == kill_in_epoch and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    callbacks = [
        # A folder for each worker, since each keeps its own.
        keras.callbacks.BackupAndRestore(Path(folder, replica().name)),
        keras.callbacks.LambdaCallback(on_epoch_begin=die_once),
    ]
    history = model.fit(x, y, batch_size=64, epochs=epochs, verbose=2 if replica().is_coordinator else 0, callbacks=callbacks)
    _, accuracy = model.evaluate(x_test, y_test, verbose=0)
    return float(accuracy), [epoch + 1 for epoch in history.epoch]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as checkpoints:
        accuracy, epochs_run = train(checkpoints, kill_in_epoch=3)
    print(f"after the restart: epochs {epochs_run}")
    print(f"accuracy {accuracy:.3f}")
