"""
Keras ``fit`` on two workers: handwritten digits, a few seconds, no download.

    python examples/digits_keras.py
"""

from distrib import distributed, replica


@distributed(framework="tensorflow", worker=2, env={"TF_CPP_MIN_LOG_LEVEL": "2"})
def train(epochs: int = 5) -> float:
    """
    Train on all workers in step; return the accuracy on digits that were not trained on.
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

    # The workers share each batch: both take half of it.
    model.fit(x, y, batch_size=64, epochs=epochs, verbose=2 if replica().is_coordinator else 0)
    _, accuracy = model.evaluate(x_test, y_test, verbose=0)
    return float(accuracy)


if __name__ == "__main__":
    print(f"accuracy {train():.3f}")
