"""
Parameter servers: a chief hands out steps, two workers compute them on their own, one server holds the weights.

    python examples/digits_parameter_server.py
"""

from typing import Any

from distrib import distributed


@distributed(framework="tensorflow", chief=1, worker=2, ps=1, env={"TF_CPP_MIN_LOG_LEVEL": "2"})
def train(epochs: int = 8, batch_size: int = 64) -> float:
    """
    Train asynchronously; return the accuracy on digits that were not trained on.
    """
    import keras
    import numpy as np
    import tensorflow as tf
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    from distrib.tensorflow import strategy

    # In the workers and the parameter server this call does not return; from here on only the chief runs.
    cluster = strategy()
    coordinator = tf.distribute.coordinator.ClusterCoordinator(cluster)

    digits = load_digits()
    x, x_test, y, y_test = train_test_split(digits.data.astype("float32") / 16, digits.target, test_size=300, random_state=0)

    with cluster.scope():
        model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10)])
        optimizer = keras.optimizers.Adam(1e-2)
        optimizer.build(model.trainable_variables)
        loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def batches() -> Any:
        # Run once in each worker, which then draws its own batches.
        return tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x)).repeat().batch(batch_size)

    def step(iterator: Any) -> Any:
        def one(images: Any, labels: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = loss_of(labels, model(images, training=True))
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            return loss

        return cluster.run(one, args=next(iterator))

    run_step = tf.function(step)
    data = iter(coordinator.create_per_worker_dataset(batches))
    steps = len(x) // batch_size
    for epoch in range(epochs):
        losses = [coordinator.schedule(run_step, args=(data,)) for _ in range(steps)]
        coordinator.join()
        print(f"epoch {epoch + 1}: loss {np.mean([loss.fetch() for loss in losses]):.3f}")

    predicted = np.argmax(model(x_test), axis=1)
    return float(np.mean(predicted == y_test))


if __name__ == "__main__":
    print(f"accuracy {train():.3f}")
