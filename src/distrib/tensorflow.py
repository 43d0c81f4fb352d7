"""
What TensorFlow training code calls: :func:`strategy`.

Only this module of ``distrib`` imports TensorFlow, and only when :func:`strategy` is called.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import attrs

from distrib import _keras, _processors, _report
from distrib._cluster import ClusterSpec, Replica, replica
from distrib.backends.tensorflow import TF_CONFIG, TensorFlowBackend, parse_tf_config, render_tf_config, visible_cluster
from distrib.errors import DistribError, EngineError, InvalidJobError, did_you_mean

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["strategy"]

#: How many operations may run side by side.
_THREADS = "TF_NUM_INTEROP_THREADS"

_made: tf.distribute.Strategy | None = None


def strategy(*, keras_fix: bool = True) -> tf.distribute.Strategy:
    """
    The ``tf.distribute`` strategy that fits this replica's cluster, so that one function trains on every topology.

    ============================  ==========================================================================
    the job                       what comes back
    ============================  ==========================================================================
    no cluster, or one trainer    the default strategy; ``MirroredStrategy`` with several GPUs
    workers, with or without      ``MultiWorkerMirroredStrategy``; returns when all have met
    a chief
    parameter servers             ``ParameterServerStrategy`` in the chief, once all servers are up; the
                                  workers and the parameter servers serve here and *never return*
    in an evaluator               as without a cluster
    ============================  ==========================================================================

    Call it before the first TensorFlow operation. Later calls return the same object.

    Args:
        keras_fix: Whether to work round what keeps ``fit``, ``evaluate`` and ``predict`` of Keras 3 from running across
            workers. It is done only where Keras needs it, and said in the log. The variable ``DISTRIB_KERAS_FIX=0``
            switches it off as well.

    Returns:
        The strategy; build and compile the model in its ``scope()``.

    Raises:
        EngineError: The run has several replicas, but there is no ``TF_CONFIG``; or its port is taken.

        InvalidJobError: ``TF_CONFIG`` cannot be used: parameter servers without a chief, for instance.

        DistribError: TensorFlow was used before the first call.

    .. doctest::

        >>> from distrib.tensorflow import strategy
        >>> with strategy().scope():
        ...     pass  # build and compile the model
        >>> strategy().num_replicas_in_sync
        1
    """
    global _made  # noqa: PLW0603 -- TensorFlow's runtime is one for each process, and so is its strategy.
    if _made is None:
        _share_gpus()
        _made = _make(_find_place(), keras_fix=keras_fix)
    return _made


@attrs.frozen
class _Place:
    """
    Where this process is in the cluster that trains.
    """

    role: str
    index: int
    cluster: ClusterSpec

    @property
    def name(self) -> str:
        return f"{self.role}-{self.index}"

    @property
    def address(self) -> str:
        return self.cluster[self.role][self.index]


def _find_place() -> _Place | None:
    text = os.environ.get(TF_CONFIG)
    if not text:
        me = replica()
        if me.world_size > 1:
            raise EngineError(
                f"{me.name} is one of {me.world_size} replicas, but {TF_CONFIG} is not set, so it would train alone. "
                f"Whatever started it has to set it: on Kubernetes that is the training operator; check that it is installed."
            )
        return None
    place = _parse(text)
    if place is not None:
        # What the operator writes still has the evaluators in everybody's cluster.
        os.environ[TF_CONFIG] = render_tf_config(place.role, place.index, place.cluster)
    return place


def _parse(text: str) -> _Place | None:
    try:
        if not json.loads(text).get("cluster"):
            return None
        role, index, cluster = parse_tf_config(text)
        _check_roles((role, *cluster))
        seen = visible_cluster(Replica(role=role, index=index, rank=0, cluster=cluster), cluster)
        place = _Place(*seen)
        place.address  # noqa: B018 -- an index beyond the cluster is found here
    except InvalidJobError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise InvalidJobError(
            f"{TF_CONFIG}: not a cluster that TensorFlow could use ({error!r}); it holds {text[:200]!r}. "
            f'Write {{"cluster": {{"worker": ["host:port", …]}}, "task": {{"type": "worker", "index": 0}}}}, or remove it.',
            field=TF_CONFIG,
            value=text,
        ) from error
    return place


def _share_gpus() -> None:
    # By default the first process on a machine takes all memory of all GPUs that it sees.
    me = replica()
    hosts = [address.rpartition(":")[0] for addresses in me.cluster.values() for address in addresses]
    if hosts.count(me.address.rpartition(":")[0]) > 1:
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")


def _check_roles(roles: tuple[str, ...]) -> None:
    legal = [role.name for role in TensorFlowBackend.roles]
    for role in roles:
        if role not in legal:
            raise InvalidJobError(f"{TF_CONFIG}: TensorFlow has no role {role!r}.{did_you_mean(role, legal)}", field=TF_CONFIG, value=role)


def _make(place: _Place | None, *, keras_fix: bool) -> tf.distribute.Strategy:
    if place is None or place.role == "evaluator":
        return _local()
    if place.cluster.get("ps"):
        return _parameter_server(place)
    if place.cluster.world_size == 1:
        return _local()
    return _multi_worker(place, keras_fix=keras_fix)


def _local() -> tf.distribute.Strategy:
    import tensorflow as tf

    several = len(tf.config.list_physical_devices("GPU")) > 1
    return tf.distribute.MirroredStrategy() if several else tf.distribute.get_strategy()


def _multi_worker(place: _Place, *, keras_fix: bool) -> tf.distribute.Strategy:
    import tensorflow as tf

    _require_fresh_runtime()
    _report.progress(f"waiting for the cluster of {place.cluster.world_size}")
    try:
        with _sigterm_as_it_was():
            made = tf.distribute.MultiWorkerMirroredStrategy()
    except tf.errors.OpError as error:
        raise _cannot_join(place, error) from error
    if keras_fix:
        first = next(iter(place.cluster.values()))[0]
        _keras.make_fit_work(announce=place.address == first)
    return made


@contextmanager
def _sigterm_as_it_was() -> Iterator[None]:
    # TensorFlow's coordination service catches SIGTERM and lets the process go on, in a collective for ever.
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _parameter_server(place: _Place) -> tf.distribute.Strategy:
    for role, purpose in (("chief", "runs the program"), ("worker", "computes the gradients")):
        if role not in place.cluster:
            raise InvalidJobError(
                f"{role}: training with parameter servers needs a {role}, which {purpose}; the cluster has "
                f"{', '.join(place.cluster)}. Add {role}=1, or leave out ps to train the workers in step.",
                field=role,
                value=0,
            )
    # As TensorFlow's guide has it: a server that is slow to come up is waited for.
    os.environ.setdefault("GRPC_FAIL_FAST", "use_caller")
    # With a single one, TensorFlow's own choice on a single processor, the chief waits for ever.
    if os.environ.get(_THREADS) in (None, "0", "1"):
        os.environ[_THREADS] = str(max(2, _processors.cpu_count()))
    if place.role != "chief":
        _serve(place)
    return _lead(place)


def _lead(place: _Place) -> tf.distribute.Strategy:
    import tensorflow as tf

    _require_fresh_runtime()
    _report.progress(f"waiting for the cluster of {place.cluster.world_size}")
    try:
        made = tf.distribute.ParameterServerStrategy(tf.distribute.cluster_resolver.TFConfigClusterResolver())
    except tf.errors.OpError as error:
        raise _cannot_join(place, error) from error
    _keras.refuse_fit_with_parameter_servers()
    return made


def _serve(place: _Place) -> NoReturn:
    import tensorflow as tf

    try:
        server = tf.distribute.Server(tf.train.ClusterSpec(dict(place.cluster)), place.role, place.index, protocol="grpc")
    except tf.errors.OpError as error:
        raise _cannot_join(place, error) from error
    _report.serving()
    # server.join() would wait as well, but keep Python's signal handlers from running.
    threading.Event().wait()
    raise AssertionError(server)  # never reached; up to here the server is kept


def _require_fresh_runtime() -> None:
    from tensorflow.python.eager import context

    if getattr(context.context(), "_initialized", False):
        raise DistribError(
            "strategy() has to be called before the first TensorFlow operation, and this process has already run one. "
            "Call it first in the training function, and keep tensors and models out of the module's top level."
        )


def _cannot_join(place: _Place, error: Any) -> DistribError:
    first = (str(error.message or error).strip() or type(error).__name__).splitlines()[0]
    if "Could not start gRPC server" in first:
        return EngineError(f"{place.name} cannot listen on {place.address}: another program has taken the port since. Run it again.")
    return EngineError(f"{place.name} cannot join the cluster of {place.cluster.world_size}: {first}")
