"""
Lets Keras 3 train across workers: works round defects of its TensorFlow trainer, where it has them.

Keras is asked, not its version: each probe calls the function at fault with a stand-in strategy that only notes what it
is asked to do, so nothing is sent to other workers.
"""

# ruff: noqa: SLF001 -- the defects are in private parts of Keras, and so is the way round them.
from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

from distrib.errors import UnsupportedError

#: ``0`` leaves Keras as it is.
FIX_VARIABLE = "DISTRIB_KERAS_FIX"

_TRAINER = "keras.src.backend.tensorflow.trainer"

#: On functions of Keras that have been replaced.
_MARK = "_distrib"

#: What the user called that ended in a private method.
_PUBLIC = {"_backend_update_step": "optimizer.apply"}

_NO_PARAMETER_SERVERS = (
    "Keras 3 cannot train with parameter servers. Use a custom loop with tf.distribute.coordinator.ClusterCoordinator, "
    "or legacy Keras: env={'TF_USE_LEGACY_KERAS': '1'} and the package tf-keras."
)

log = logging.getLogger("distrib.tensorflow")


def make_fit_work(*, announce: bool) -> list[str]:
    """
    Work round the defects that the loaded Keras has under ``MultiWorkerMirroredStrategy``.

    A Keras that would train each worker by itself, and not say so, is made to say so.

    Args:
        announce: Say so in the log; one replica of a run is enough.

    Returns:
        What was worked round; empty if there is no Keras 3 here, nothing is broken, or all was done before.
    """
    trainer = _trainer_module()
    if trainer is None or os.environ.get(FIX_VARIABLE) == "0":
        return []
    if _too_old():
        _refuse_too_old(trainer)
        return []
    fixed = [name for name, (is_broken, fix) in _DEFECTS.items() if _seen(is_broken, trainer) and fix(trainer)]
    if fixed and announce:
        log.warning(
            "Keras %s cannot train across workers by itself; worked round: %s. Switch off with strategy(keras_fix=False).",
            _version(),
            ", ".join(fixed),
        )
    return fixed


def refuse_fit_with_parameter_servers() -> None:
    """
    Make ``fit``, ``evaluate`` and ``predict`` of Keras 3 say that they do not know parameter servers.
    """
    trainer = _trainer_module()
    if trainer is not None:
        known = trainer.tf.distribute.ParameterServerStrategy
        _refuse(trainer.TensorFlowTrainer, lambda model: isinstance(model.distribute_strategy, known), _NO_PARAMETER_SERVERS)


def _too_old() -> bool:
    # Only since 3.10 are metrics summed up over the workers; since 3.8 losses are averaged over all of them.
    return not hasattr(sys.modules["keras.src.backend.tensorflow.core"].Variable, "_map_synchronization")


def _refuse_too_old(trainer: Any) -> None:
    why = (
        f"Keras {_version()} does not train right across workers: it keeps gradients to itself, or reports wrong losses, and does "
        "not say so. Install a newer one, which runs with the same TensorFlow: python -m pip install 'keras>=3.10'"
    )
    several = trainer._collective_all_reduce_multi_worker
    _refuse(trainer.TensorFlowTrainer, lambda model: several(model.distribute_strategy), why)
    optimizer: Any = sys.modules["keras.src.backend.tensorflow.optimizer"].TFOptimizer
    if _seen(_keeps_gradients, optimizer):
        _refuse(optimizer, lambda self: several(self._distribution_strategy), why, names=("_backend_update_step",))


def _keeps_gradients(optimizer: Any) -> bool:
    tf: Any = sys.modules["tensorflow"]
    asked = []

    class Recorder:
        _distribution_strategy = tf.distribute.get_strategy()

        def _distributed_tf_update_step(self, *_: Any) -> None:
            pass

        def _all_reduce_sum_gradients(self, pairs: Any) -> Any:
            asked.append(pairs)
            return pairs

    # Up to 3.4 they are exchanged where it is too late, in _distributed_tf_update_step.
    optimizer._backend_update_step(Recorder(), [], [], 0.1)
    return not asked


def _refuse(owner: Any, applies: Callable[[Any], bool], why: str, names: tuple[str, ...] = ("fit", "evaluate", "predict")) -> None:
    for name in names:
        original = getattr(owner, name)
        if not hasattr(original, _MARK):
            setattr(owner, name, _refusing(original, name, applies, why))


def _refusing(original: Callable[..., Any], name: str, applies: Callable[[Any], bool], why: str) -> Callable[..., Any]:
    @functools.wraps(original)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        if applies(self):
            raise UnsupportedError(f"{_PUBLIC.get(name, name)}: {why}")
        return original(self, *args, **kwargs)

    setattr(checked, _MARK, True)
    return checked


def _version() -> str:
    return str(getattr(sys.modules.get("keras"), "__version__", "?"))


def _trainer_module() -> Any:
    # `import tensorflow` loads Keras 3 unless TF_USE_LEGACY_KERAS is set, and then its trainer is not the one in use.
    keras = sys.modules.get("keras")
    return sys.modules.get(_TRAINER) if keras is not None and keras.backend.backend() == "tensorflow" else None


def _seen(is_broken: Callable[[Any], bool], trainer: Any) -> bool:
    try:
        return is_broken(trainer)
    except Exception:
        # Not the Keras that the defect is known from; changing it blindly could do harm.
        log.info("Keras' trainer was not recognised and is left as it is.", exc_info=True)
        return False


def _recorder(trainer: Any) -> Any:
    """
    A stand-in for a multi-worker strategy: real to `isinstance`, keeps what it is asked to reduce in ``.asked``.
    """
    base: Any = trainer.tf.distribute.MultiWorkerMirroredStrategy

    class Recorder(base):  # type: ignore[misc]
        def __init__(self) -> None:
            self.asked: list[tuple[Any, Any]] = []

        @property
        def extended(self) -> Any:
            return self

        def _in_multi_worker_mode(self) -> bool:
            return True

        def experimental_local_results(self, value: Any) -> tuple[Any, ...]:
            return (value,)

        def scope(self) -> Any:
            return trainer.tf.distribute.get_strategy().scope()

        def reduce(self, _op: Any, value: Any, axis: Any = None) -> Any:
            self.asked.append((value, axis))
            return value

    return Recorder()


def _reduces_along_missing_axis(trainer: Any) -> bool:
    recorder = _recorder(trainer)
    # A number stands in for a scalar tensor, which would start the runtime too early.
    trainer.reduce_per_replica(1.0, recorder, reduction="auto")
    return any(axis == 0 for _, axis in recorder.asked)


def _reduces_nested_batch(trainer: Any) -> bool:
    if not hasattr(trainer.TensorFlowTrainer, "_maybe_symbolic_build"):
        # Keras before 3.5 builds from the batch as it is.
        return False

    class Distributed(trainer.tf.distribute.DistributedValues):  # type: ignore[misc]
        def __init__(self) -> None:
            pass

    class Model:
        _distribute_strategy = distribute_strategy = _recorder(trainer)

        def _symbolic_build(self, **batch: Any) -> None:
            pass

    batch = (Distributed(), Distributed())
    build = trainer.TensorFlowTrainer._maybe_symbolic_build
    try:
        build(Model(), iterator=[(0, 1, iter([batch]))])
    except ValueError:
        # Keras before 3.11 counts only where a step begins.
        build(Model(), iterator=[(0, iter([batch]))])
    return any(value is batch for value, _ in Model.distribute_strategy.asked)


def _reduce_scalars_whole(trainer: Any) -> bool:
    original = trainer.reduce_per_replica

    @functools.wraps(original)
    def reduce_per_replica(values: Any, strategy: Any, reduction: str) -> Any:
        if reduction not in ("auto", "mean") or not trainer._collective_all_reduce_multi_worker(strategy):
            return original(values, strategy, reduction)
        return trainer.tree.map_structure(lambda value: strategy.reduce("MEAN", value, axis=None), values)

    trainer.reduce_per_replica = reduce_per_replica
    return True


def _build_from_local_batch(trainer: Any) -> bool:
    original = trainer.TensorFlowTrainer._maybe_symbolic_build

    @functools.wraps(original)
    def _maybe_symbolic_build(self: Any, iterator: Any = None, data_batch: Any = None) -> None:
        several = trainer._collective_all_reduce_multi_worker(self.distribute_strategy)
        original(_LocalBatches(self, trainer) if several else self, iterator=iterator, data_batch=data_batch)

    trainer.TensorFlowTrainer._maybe_symbolic_build = _maybe_symbolic_build
    return True


class _View:
    """
    A model as it is, but for what a subclass changes.
    """

    def __init__(self, model: Any) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class _LocalBatches(_View):
    """
    A model whose strategy "reduces" a batch to what this worker has of it: only shapes and dtypes matter, and they are equal.
    """

    def __init__(self, model: Any, trainer: Any) -> None:
        super().__init__(model)
        self._trainer = trainer

    @property
    def distribute_strategy(self) -> _LocalBatches:
        return self

    def scope(self) -> Any:
        return self._model.distribute_strategy.scope()

    def reduce(self, _op: Any, batch: Any, axis: Any = None) -> Any:  # noqa: ARG002 -- as Keras calls it
        local = self._model.distribute_strategy.experimental_local_results
        return self._trainer.tree.map_structure(lambda value: local(value)[0], batch)


def _loops_in_graph(trainer: Any) -> bool:
    # Keras 3.9 began to loop over steps inside the graph; under a multi-worker strategy that graph does not run.
    return not hasattr(trainer.TensorFlowTrainer._make_function, _MARK)


def _loop_step_by_step(trainer: Any) -> bool:
    original = trainer.TensorFlowTrainer._make_function

    @functools.wraps(original)
    def _make_function(self: Any, step_function: Callable[..., Any]) -> Callable[..., Any]:
        several: Callable[..., Any] = original(self, step_function)
        if not trainer._collective_all_reduce_multi_worker(self.distribute_strategy):
            return several
        if self.jit_compile and not trainer.tf.config.list_physical_devices("GPU"):
            raise UnsupportedError("jit_compile=True: XLA cannot compile the exchange between workers on CPUs; leave it out.")
        if self.steps_per_execution == 1:
            return several
        steps, one = self.steps_per_execution, original(_OneStep(self), step_function)
        iterators = (trainer.tf.data.Iterator, trainer.tf.distribute.DistributedIterator)
        return lambda data: _run_steps(one, data, steps) if isinstance(data, iterators) else several(data)

    setattr(_make_function, _MARK, True)
    trainer.TensorFlowTrainer._make_function = _make_function
    return True


class _OneStep(_View):
    """
    A model that runs one step at a time.
    """

    steps_per_execution = 1


def _run_steps(one: Callable[..., Any], iterator: Any, steps: int) -> Any:
    outputs = one(iterator)
    with contextlib.suppress(StopIteration):
        for _ in range(steps - 1):
            outputs = one(iterator)
    return outputs


#: What is broken -> how that is seen, and what is done about it.
_DEFECTS: dict[str, tuple[Callable[[Any], bool], Callable[[Any], bool]]] = {
    "building the model from a batch": (_reduces_nested_batch, _build_from_local_batch),
    "averaging losses and metrics": (_reduces_along_missing_axis, _reduce_scalars_whole),
    "steps_per_execution": (_loops_in_graph, _loop_step_by_step),
}
