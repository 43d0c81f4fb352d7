"""
What the tests run in replicas: each function goes through many facts in one go and returns what it found.

TensorFlow's start costs seconds, so one run serves many tests.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import distrib

#: Fifteen of them are an epoch.
BATCH = 100


def digits() -> tuple[Any, Any, Any, Any]:
    """
    1,500 digits to train on and 297 to test.
    """
    from sklearn.datasets import load_digits

    found = load_digits()
    x, y = (found.data / 16).astype("float32"), found.target
    return x[:1500], y[:1500], x[1500:], y[1500:]


def said(function: Callable[[], object]) -> str:
    """
    The type and the text of what *function* raises.
    """
    try:
        function()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was raised"


def progress_of(run: distrib.Run[Any]) -> dict[str, str]:
    """
    What each replica has said of a step that may take long.
    """
    return {event.replica: event.message for event in run.events() if event.kind == "progress"}


def caught_signals() -> set[int]:
    """
    The signals that some code of this process has a handler for, Python's or not.
    """
    with Path("/proc/self/status").open() as lines:
        mask = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))
    return {number for number in range(1, 32) if mask >> (number - 1) & 1}


def dense_model(scope: Any, optimizer: Callable[[], Any] | None = None, **compiled: Any) -> Any:
    """
    One hidden layer, equal weights each time.
    """
    import keras

    keras.utils.set_random_seed(1)
    with scope.scope():
        model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10)])
        model.compile(
            optimizer() if optimizer else keras.optimizers.Adam(1e-2),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            **compiled,
        )
    return model


def weights_of(model: Any) -> list[Any]:
    """
    All weights as one flat list of numbers, to be compared between workers.
    """
    import numpy as np

    return [float(value) for weight in model.get_weights() for value in (np.sum(weight), np.sum(np.abs(weight)))]


def two_workers(folder: str) -> dict[str, Any]:
    """
    Everything that takes two workers with Keras 3.
    """
    import keras
    import tensorflow as tf

    from distrib import _keras
    from distrib import tensorflow as ours
    from distrib.backends.tensorflow import TensorFlowBackend

    found: dict[str, Any] = {"fork_safe_before": TensorFlowBackend().fork_safe()}
    before = caught_signals()
    strategy = ours.strategy(keras_fix=False)
    found["strategy"] = type(strategy).__name__
    found["replicas_in_sync"] = strategy.num_replicas_in_sync
    found["same_again"] = ours.strategy() is strategy
    found["caught_more"] = sorted(caught_signals() - before)
    found["fork_safe_after"] = TensorFlowBackend().fork_safe()

    x, y, _, _ = digits()
    found["fit_without_fix"] = said(lambda: dense_model(strategy).fit(x, y, batch_size=BATCH, epochs=1, verbose=0))
    os.environ[_keras.FIX_VARIABLE] = "0"
    found["switched_off"] = _keras.make_fit_work(announce=True)
    del os.environ[_keras.FIX_VARIABLE]
    found["fixed"] = _keras.make_fit_work(announce=distrib.replica().is_coordinator)
    found["fixed_again"] = _keras.make_fit_work(announce=True)

    for check in (_fit, _hand_loop, _weighted, _several_steps, _nested, _uneven, _eager, _callbacks):
        found[check.__name__.strip("_")] = check(strategy, folder)
    jit = dense_model(strategy, jit_compile=True)
    found["jit"] = said(lambda: jit.fit(x, y, verbose=0))

    found["too_old"] = _as_with_an_old_keras(strategy)

    ours._made = None
    found["late"] = said(ours.strategy)
    found["versions"] = (tf.__version__, keras.__version__)
    return found


def _as_with_an_old_keras(strategy: Any) -> list[str]:
    from distrib import _keras

    x, y, _, _ = digits()
    model = dense_model(strategy)
    _keras._too_old = lambda: True
    _keras._keeps_gradients = lambda _: True
    fixed = _keras.make_fit_work(announce=True)
    gradients = model.get_weights()

    def step() -> None:
        model.optimizer.apply(gradients, model.trainable_variables)

    return [*fixed, said(lambda: model.fit(x, y, verbose=0)), said(lambda: strategy.run(step))]


def _fit(strategy: Any, _: str) -> dict[str, Any]:
    import numpy as np

    x, y, x_test, y_test = digits()
    model = dense_model(strategy)
    history = model.fit(x, y, batch_size=BATCH, epochs=2, validation_data=(x_test, y_test), verbose=0).history
    evaluated = model.evaluate(x_test, y_test, batch_size=64, return_dict=True, verbose=0)
    predicted = model.predict(x_test, batch_size=64, verbose=0)
    return {
        "history": history,
        "weights": weights_of(model),
        "evaluated": evaluated,
        "predicted": predicted.shape,
        "predicted_off_by": float(np.max(np.abs(predicted - np.asarray(model(x_test))))),
        "accuracy_by_hand": float(np.mean(np.argmax(predicted, axis=1) == y_test)),
    }


def _hand_loop(strategy: Any, _: str) -> dict[str, Any]:
    import keras
    import numpy as np
    import tensorflow as tf

    x, y, _, _ = digits()
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH)
    fitted = dense_model(strategy, lambda: keras.optimizers.SGD(0.1))
    history = fitted.fit(data, epochs=2, shuffle=False, verbose=0).history

    model = dense_model(strategy, lambda: keras.optimizers.SGD(0.1))
    loss_of_each = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)

    @tf.function
    def step(batch: Any) -> Any:
        def one(images: Any, labels: Any) -> Any:
            with tf.GradientTape() as tape:
                logits = model(images, training=True)
                loss = tf.reduce_sum(loss_of_each(labels, logits)) / BATCH
            gradients = tape.gradient(loss, model.trainable_variables)
            model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            right = tf.reduce_sum(tf.cast(tf.argmax(logits, axis=1) == labels, tf.float32)) / BATCH
            return loss, right

        losses, rights = strategy.run(one, args=batch)
        return strategy.reduce("SUM", losses, axis=None), strategy.reduce("SUM", rights, axis=None)

    shared = strategy.experimental_distribute_dataset(data)
    by_hand: dict[str, list[float]] = {"loss": [], "accuracy": []}
    for _epoch in range(2):
        steps = [[float(number) for number in step(batch)] for batch in shared]
        for name, value in zip(by_hand, np.mean(steps, axis=0), strict=True):
            by_hand[name].append(float(value))
    return {"history": history, "by_hand": by_hand, "weights": weights_of(fitted), "weights_by_hand": weights_of(model)}


def _weighted(strategy: Any, _: str) -> dict[str, Any]:
    import numpy as np

    x, y, x_test, y_test = digits()
    model = dense_model(strategy)
    by_class = model.fit(x, y, batch_size=BATCH, class_weight={digit: 1.0 + digit for digit in range(10)}, verbose=0).history
    by_sample = model.fit(x, y, batch_size=BATCH, sample_weight=np.linspace(0, 1, len(x)), verbose=0).history
    zero = model.evaluate(x_test, y_test, sample_weight=np.zeros(len(x_test)), verbose=0, return_dict=True)
    return {"by_class": by_class, "by_sample": by_sample, "zero_loss": zero["loss"], "weights": weights_of(model)}


def _several_steps(strategy: Any, _: str) -> dict[str, Any]:
    import keras
    import tensorflow as tf

    x, y, x_test, _ = digits()
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH)
    # 15 batches: the last execution of four steps has only three.
    model = dense_model(strategy, lambda: keras.optimizers.SGD(0.1), steps_per_execution=4)
    history = model.fit(data, epochs=2, shuffle=False, verbose=0).history
    return {"history": history, "weights": weights_of(model), "predicted": model.predict(x_test, verbose=0).shape}


def _nested(strategy: Any, _: str) -> dict[str, Any]:
    import keras

    x, y, x_test, y_test = digits()
    keras.utils.set_random_seed(1)
    with strategy.scope():
        left, right = keras.Input((64,), name="left"), keras.Input((64,), name="right")
        hidden = keras.layers.Dense(32, activation="relu")(keras.layers.Concatenate()([left, right]))
        digit, size = keras.layers.Dense(10, name="digit")(hidden), keras.layers.Dense(1, name="size")(hidden)
        model = keras.Model({"left": left, "right": right}, {"digit": digit, "size": size})
        losses = {"digit": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "size": "mse"}
        model.compile("adam", losses, metrics={"digit": ["accuracy"]})
    history = model.fit({"left": x, "right": x}, {"digit": y, "size": y.astype("float32")}, batch_size=BATCH, verbose=0).history
    evaluated = model.evaluate({"left": x_test, "right": x_test}, {"digit": y_test, "size": y_test}, verbose=0, return_dict=True)
    predicted = model.predict({"left": x_test, "right": x_test}, verbose=0)
    return {
        "history": sorted(history),
        "evaluated": sorted(evaluated),
        "predicted": {name: value.shape for name, value in predicted.items()},
        "weights": weights_of(model),
    }


def _uneven(strategy: Any, _: str) -> dict[str, Any]:
    x, y, x_test, y_test = digits()
    model = dense_model(strategy)
    # Five batches of 64 and one of 13, which gives one worker seven and the other six; then a single sample.
    model.fit(x[:333], y[:333], batch_size=64, verbose=0)
    return {
        "weights": weights_of(model),
        "loss_in_many": model.evaluate(x_test, y_test, batch_size=10, verbose=0)[0],
        "loss_at_once": model.evaluate(x_test, y_test, batch_size=300, verbose=0)[0],
        "predicted_one": model.predict(x_test[:1], verbose=0).shape,
    }


def _eager(strategy: Any, _: str) -> dict[str, Any]:
    x, y, _, _ = digits()
    model = dense_model(strategy, run_eagerly=True)
    history = model.fit(x[:200], y[:200], batch_size=BATCH, verbose=0).history
    return {"history": history, "weights": weights_of(model)}


def _callbacks(strategy: Any, folder: str) -> dict[str, Any]:
    import keras

    x, y, x_test, y_test = digits()
    mine = Path(folder, distrib.replica().name)
    model = dense_model(strategy)
    callbacks = [
        keras.callbacks.BackupAndRestore(mine / "backup"),
        keras.callbacks.ModelCheckpoint(mine / "model.keras"),
        keras.callbacks.EarlyStopping(monitor="val_loss", min_delta=100.0, patience=1),
    ]
    history = model.fit(x, y, batch_size=BATCH, epochs=9, validation_data=(x_test, y_test), callbacks=callbacks, verbose=0)
    loaded = keras.models.load_model(mine / "model.keras")
    return {"epochs": history.epoch, "weights": weights_of(model), "loaded": weights_of(loaded)}


def any_topology(folder: str) -> dict[str, Any]:
    """
    A loop by hand that finds a line through points, for whatever cluster; an evaluator computes the loss of what was found.
    """
    import tensorflow as tf

    from distrib.tensorflow import strategy

    found = Path(folder, "line")
    cluster = strategy()  # workers beside parameter servers do not return from here
    x = tf.linspace(-1.0, 1.0, 32)
    y = 2.0 * x + 1.0
    if distrib.replica().role == "evaluator":
        while not found.exists():
            time.sleep(0.05)
        slope, intercept = json.loads(found.read_text())
        return {"strategy": type(cluster).__name__, "loss": float(tf.reduce_mean((slope * x + intercept - y) ** 2))}

    with cluster.scope():
        line = [tf.Variable(0.0, aggregation=tf.VariableAggregation.MEAN) for _ in range(2)]

    def one() -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((line[0] * x + line[1] - y) ** 2)
        for variable, gradient in zip(line, tape.gradient(loss, line), strict=True):
            variable.assign_sub(0.3 * gradient)

    step = tf.function(lambda: cluster.run(one))
    if distrib.replica().cluster.get("ps"):
        coordinator = tf.distribute.coordinator.ClusterCoordinator(cluster)
        for _ in range(50):
            coordinator.schedule(step)
            coordinator.join()
    else:
        for _ in range(50):
            step()
    values = [float(variable.numpy()) for variable in line]
    if distrib.replica().is_coordinator:
        found.with_suffix(".partial").write_text(json.dumps(values))
        found.with_suffix(".partial").rename(found)
    return {"strategy": type(cluster).__name__, "in_sync": cluster.num_replicas_in_sync, "line": values}


def lone_worker() -> dict[str, Any]:
    """
    One worker beside several evaluators: nobody has anybody to wait for.
    """
    import tensorflow as tf

    from distrib.tensorflow import strategy

    me = distrib.replica()
    found: dict[str, Any] = {"tf_config": os.environ["TF_CONFIG"], "address": me.address}
    if me.name == "evaluator-1":
        return found | {"port_taken": _with_its_port_taken()}
    found["strategy"] = type(strategy()).__name__
    found["replicas_in_sync"] = strategy().num_replicas_in_sync
    if me.role == "worker":
        # Code that does not know distrib finds a cluster that TensorFlow accepts.
        tf.config.experimental.list_logical_devices()
        found["resolver"] = tf.distribute.cluster_resolver.TFConfigClusterResolver().cluster_spec().as_dict()
    with strategy().scope():
        variable = tf.Variable(1.0)
    found["value"] = float(strategy().run(lambda: variable + 1.0))
    return found


def _with_its_port_taken() -> str:
    from distrib.tensorflow import strategy

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        cluster = {"worker": [f"127.0.0.1:{port}", "127.0.0.1:1"]}
        os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 0}})
        return said(strategy).replace(str(port), "PORT")


def parameter_servers() -> dict[str, Any]:
    """
    Legacy Keras with parameter servers; reached by the chief only.
    """
    import tensorflow as tf

    from distrib.tensorflow import strategy

    made = strategy()
    x, y, _, _ = digits()
    tf.keras.utils.set_random_seed(1)
    with made.scope():
        model = _legacy_model(tf.keras)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH).repeat()
    history = model.fit(data, epochs=3, steps_per_epoch=15, verbose=0).history
    return {"keras": tf.keras.__name__, "strategy": type(made).__name__, "accuracy": history["accuracy"]}


def legacy_keras() -> dict[str, Any]:
    """
    Legacy Keras on two workers.
    """
    import tensorflow as tf

    from distrib.tensorflow import strategy

    x, y, _, _ = digits()
    tf.keras.utils.set_random_seed(1)
    with strategy().scope():
        model = _legacy_model(tf.keras)
    history = model.fit(x, y, batch_size=BATCH, epochs=2, verbose=0).history
    return {"keras": tf.keras.__name__, "accuracy": history["accuracy"], "weights": weights_of(model)}


def _legacy_model(keras: Any) -> Any:
    model = keras.Sequential([keras.layers.Input((64,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.legacy.Adam(1e-2), loss, metrics=["accuracy"])
    return model


def keras3_with_parameter_servers() -> dict[str, Any]:
    """
    What Keras 3 says under a parameter-server strategy; reached by the chief only.
    """
    import keras

    from distrib.tensorflow import strategy

    before = caught_signals()
    with strategy().scope():
        model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
        model.compile("adam", "mse")
    x, y, _, _ = digits()
    return {
        "fit": said(lambda: model.fit(x, y, verbose=0)),
        "predict": said(lambda: model.predict(x, verbose=0)),
        "caught_more": sorted(caught_signals() - before),
        "threads": os.environ["TF_NUM_INTEROP_THREADS"],
    }
