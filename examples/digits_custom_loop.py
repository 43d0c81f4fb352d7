"""
A training loop of your own on two workers, with ``tf.GradientTape`` and ``strategy.run``.

    python examples/digits_custom_loop.py
"""

from typing import Any

from distrib import distributed, replica


@distributed(framework="tensorflow", worker=2, env={"TF_CPP_MIN_LOG_LEVEL": "2"})
def train(epochs: int = 5, batch_size: int = 64) -> float:
    """
    Train on all workers in step; return the accuracy on digits that were not trained on.
    """
    import keras
    import numpy as np
    import tensorflow as tf
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    from distrib.tensorflow import strategy

    cluster = strategy()
    digits = load_digits()
    x, x_test, y, y_test = train_test_split(digits.data.astype("float32") / 16, digits.target, test_size=300, random_state=0)
    batches = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x), seed=0).batch(batch_size, drop_remainder=True)
    batches = cluster.experimental_distribute_dataset(batches)

    with cluster.scope():
        model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10)])
        optimizer = keras.optimizers.Adam(1e-2)
        loss_of_each = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)

    def step(batch: Any) -> Any:
        def one(images: Any, labels: Any) -> Any:
            with tf.GradientTape() as tape:
                # Divided by the size of the whole batch, since the gradients of all workers are added up.
                loss = tf.reduce_sum(loss_of_each(labels, model(images, training=True))) / batch_size
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            return loss

        return cluster.reduce("SUM", cluster.run(one, args=batch), axis=None)

    run_step = tf.function(step)
    for epoch in range(epochs):
        losses = [float(run_step(batch)) for batch in batches]
        if replica().is_coordinator:
            print(f"epoch {epoch + 1}: loss {np.mean(losses):.3f}")

    predicted = np.argmax(model(x_test), axis=1)
    return float(np.mean(predicted == y_test))


if __name__ == "__main__":
    print(f"accuracy {train():.3f}")
