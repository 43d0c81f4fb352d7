"""
Seconds from the call to the end of the first training step: ``first_step.py 2`` with two workers, ``first_step.py 0`` alone.
"""

import sys
import time

from distrib import distributed


@distributed(framework="tensorflow", worker=2)
def first_step() -> float:
    """
    Train one step on one batch; when it was done, by the clock that all processes share.
    """
    import keras
    import numpy as np

    from distrib.tensorflow import strategy

    with strategy().scope():
        model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, "relu"), keras.layers.Dense(10)])
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(np.zeros((64, 64), "float32"), np.zeros(64, "int32"), batch_size=64, epochs=1, verbose=0)
    return time.monotonic()


if __name__ == "__main__":
    workers = int(sys.argv[1])
    start = time.monotonic()
    ends = first_step.options(worker=workers).submit().results()["worker"] if workers else [first_step.function()]
    print(max(ends) - start)
