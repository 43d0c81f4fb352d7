"""
Keras across two workers: everything is done in one run, and looked at test by test.
"""

from __future__ import annotations

from typing import Any

import in_replicas
import pytest
from in_replicas import progress_of

from distrib import _keras, distributed

pytestmark = pytest.mark.tensorflow

FIXES = ["building the model from a batch", "averaging losses and metrics", "steps_per_execution"]
CHECKS = ["fit", "hand_loop", "weighted", "several_steps", "nested", "uneven", "eager", "callbacks"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """
    The run, when it is done.
    """
    folder = tmp_path_factory.mktemp("two-workers")
    task = distributed(framework="tensorflow", worker=2, local={"echo": False})(in_replicas.two_workers)
    run = task.submit(str(folder))
    run.result(600)
    return run


@pytest.fixture(scope="module")
def both(run: Any) -> list[dict[str, Any]]:
    """
    What each worker found.
    """
    return list(run.results()["worker"])


@pytest.fixture(scope="module")
def found(both: list[dict[str, Any]]) -> dict[str, Any]:
    """
    What worker 0 found.
    """
    return both[0]


class TestStrategy:
    """
    The strategy itself.
    """

    def test_kind(self, both: list[dict[str, Any]]) -> None:
        """
        Two workers train in step, and later calls give the same object.
        """
        for found in both:
            assert (found["strategy"], found["replicas_in_sync"]) == ("CollectiveAllReduceStrategy", 2)
            assert found["same_again"]

    def test_whoever_waits_says_so(self, run: Any) -> None:
        """
        Each worker tells that it waits for the others, for the case that one does not come.
        """
        assert progress_of(run) == {f"worker-{index}": "waiting for the cluster of 2" for index in (0, 1)}

    def test_sigterm_still_ends_the_process(self, found: dict[str, Any]) -> None:
        """
        TensorFlow catches SIGTERM when the workers meet; strategy() puts back what was there.
        """
        assert found["caught_more"] == []

    def test_may_be_forked_until_the_runtime_is_up(self, both: list[dict[str, Any]]) -> None:
        """
        A process that has only imported TensorFlow may be forked; one with a strategy may not.
        """
        for found in both:
            assert (found["fork_safe_before"], found["fork_safe_after"]) == (True, False)

    def test_too_late(self, found: dict[str, Any]) -> None:
        """
        After the first operation it is too late for a strategy, and that is said.
        """
        assert found["late"].startswith("DistribError: strategy() has to be called before the first TensorFlow operation")


class TestFix:
    """
    When Keras is changed.
    """

    def test_only_what_is_broken(self, both: list[dict[str, Any]]) -> None:
        """
        Without the fix fit fails, with it on all workers alike; and it is applied once.
        """
        for found in both:
            assert found["fit_without_fix"].startswith("ValueError"), found["versions"]
            assert found["switched_off"] == []
            assert found["fixed"] == FIXES
            assert found["fixed_again"] == []

    def test_announced_once(self, run: Any) -> None:
        """
        One line in the log of one worker says what was done and how to switch it off.
        """
        lines = [line for line in run.logs() if "cannot train across workers by itself" in line]
        assert len(lines) == 1
        assert lines[0].startswith("[worker-0]")
        assert "strategy(keras_fix=False)" in lines[0]

    def test_too_old(self, found: dict[str, Any]) -> None:
        """
        A Keras that trains wrong in silence is not used: fit, and the optimizer of a custom loop, name a newer one.
        """
        fit, optimizer = found["too_old"]
        assert fit.startswith("UnsupportedError: fit: Keras ")
        assert optimizer.startswith("UnsupportedError: optimizer.apply: Keras ")
        assert "python -m pip install 'keras>=3.10'" in fit

    def test_unknown_keras_is_left_alone(self) -> None:
        """
        A trainer that the probes do not recognise is not changed.
        """
        assert not _keras._seen(_keras._reduces_along_missing_axis, object())


class TestTraining:
    """
    fit, evaluate and predict.
    """

    @pytest.mark.parametrize("check", CHECKS)
    def test_equal_weights(self, check: str, both: list[dict[str, Any]]) -> None:
        """
        Both workers end with the same weights, and the same history.
        """
        assert both[0][check]["weights"] == both[1][check]["weights"]
        assert both[0][check].get("history") == both[1][check].get("history")

    def test_accuracy(self, found: dict[str, Any]) -> None:
        """
        Two epochs are enough for most digits.
        """
        assert found["fit"]["history"]["accuracy"][-1] > 0.85
        assert len(found["fit"]["history"]["val_accuracy"]) == 2

    def test_evaluate_and_predict(self, found: dict[str, Any]) -> None:
        """
        What evaluate says agrees with the validation during fit and with predict, which gives every sample in order.
        """
        fit = found["fit"]
        assert fit["evaluated"]["loss"] == pytest.approx(fit["history"]["val_loss"][-1], rel=1e-4)
        assert fit["evaluated"]["accuracy"] == pytest.approx(fit["accuracy_by_hand"], abs=1e-6)
        assert fit["predicted"] == (297, 10)
        assert fit["predicted_off_by"] < 1e-4

    def test_as_the_hand_written_loop(self, found: dict[str, Any]) -> None:
        """
        Weights, loss and accuracy are those of a loop written with strategy.run.
        """
        hand = found["hand_loop"]
        assert hand["weights"] == pytest.approx(hand["weights_by_hand"], rel=1e-5)
        for name in ("loss", "accuracy"):
            assert hand["history"][name] == pytest.approx(hand["by_hand"][name], rel=1e-4)

    def test_several_steps_per_execution(self, found: dict[str, Any]) -> None:
        """
        steps_per_execution changes neither weights nor history, though the last execution is short.
        """
        steps, hand = found["several_steps"], found["hand_loop"]
        assert steps["weights"] == pytest.approx(hand["weights"], rel=1e-5)
        assert steps["history"]["loss"] == pytest.approx(hand["history"]["loss"], rel=1e-4)
        assert steps["predicted"] == (297, 10)

    def test_weights_of_classes_and_samples(self, found: dict[str, Any]) -> None:
        """
        Class weights of 5.5 on average make the loss that much larger; weights of zero make it zero.
        """
        weighted = found["weighted"]
        assert weighted["by_class"]["loss"][0] > 3 * weighted["by_sample"]["loss"][0]
        assert weighted["zero_loss"] == 0

    def test_several_inputs_and_outputs(self, found: dict[str, Any]) -> None:
        """
        Nested batches work, and each output has its metrics.
        """
        nested = found["nested"]
        assert nested["predicted"] == {"digit": (297, 10), "size": (297, 1)}
        assert nested["history"] == nested["evaluated"]
        assert {"digit_accuracy", "loss"} <= set(nested["history"])

    def test_uneven_batches(self, found: dict[str, Any]) -> None:
        """
        Batches that do not divide among the workers count once for each sample; one sample can be predicted.
        """
        uneven = found["uneven"]
        assert uneven["loss_in_many"] == pytest.approx(uneven["loss_at_once"], rel=1e-4)
        assert uneven["predicted_one"] == (1, 10)

    def test_callbacks(self, found: dict[str, Any]) -> None:
        """
        All workers stop early in the same epoch; a checkpoint holds the weights.
        """
        callbacks = found["callbacks"]
        assert callbacks["epochs"] == [0, 1]
        assert callbacks["loaded"] == pytest.approx(callbacks["weights"], rel=1e-6)

    def test_jit_is_refused(self, found: dict[str, Any]) -> None:
        """
        XLA cannot compile the exchange on CPUs, and that is said instead of TensorFlow's own error.
        """
        assert found["jit"].startswith("UnsupportedError: jit_compile=True: XLA cannot compile the exchange")


def test_legacy_keras() -> None:
    """
    Legacy Keras trains across workers as it always did.
    """
    task = distributed(framework="tensorflow", worker=2, env={"TF_USE_LEGACY_KERAS": "1"}, local={"echo": False})
    first, second = task(in_replicas.legacy_keras).submit().results(300)["worker"]
    assert first["keras"].startswith("tf_keras")
    assert first["weights"] == second["weights"]
    assert first["accuracy"] == second["accuracy"]
    assert first["accuracy"][-1] > 0.85
