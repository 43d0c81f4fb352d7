"""
The examples of TensorFlow, run as users run them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.tensorflow


def accuracy_of(name: str) -> tuple[float, str]:
    """
    The accuracy that an example prints, and all else that it prints.
    """
    run = subprocess.run([sys.executable, EXAMPLES / name], capture_output=True, text=True, timeout=300, env=os.environ, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    found = re.search(r"^accuracy (\d\.\d+)$", run.stdout, re.MULTILINE)
    assert found, run.stdout
    return float(found[1]), run.stdout + run.stderr


def test_every_example_is_run() -> None:
    """
    No example is left out here, or among the tests of its own framework.
    """
    tested = re.findall(r'"(\w+\.py)"', Path(__file__).read_text())
    assert set(tested) == {path.name for path in EXAMPLES.glob("*.py") if "tensorflow" in path.read_text()}


@pytest.mark.parametrize("name", ["digits_keras.py", "digits_custom_loop.py", "digits_parameter_server.py"])
def test_accuracy(name: str) -> None:
    """
    It learns most digits.
    """
    accuracy, _ = accuracy_of(name)
    assert accuracy > 0.9


def test_evaluator() -> None:
    """
    The evaluator sees every checkpoint, and ends by itself.
    """
    accuracy, text = accuracy_of("digits_evaluator.py")
    assert accuracy > 0.9
    assert len(re.findall(r"\[evaluator-0\] epoch \d: accuracy", text)) == 5
    assert "it is stopped" not in text


def test_restart() -> None:
    """
    A worker is killed, all restart, training goes on in the epoch it was in with all that it had learnt, and ends as accurate as ever.
    """
    accuracy, text = accuracy_of("digits_restart.py")
    assert accuracy > 0.9
    assert "restart 1 of 3" in text
    assert "epochs [4, 5, 6]" in text
    losses = [float(loss) for loss in re.findall(r"loss: (\d\.\d+)", text)]
    assert len(losses) == 6
    # From new weights the first epoch after the restart would have the highest, several times that of the second before it.
    assert max(losses[3:]) < losses[1] < losses[0]


def test_workflow(tmp_path: Path) -> None:
    """
    A workflow of Flyte's prepares the data, trains with a parameter server, and evaluates what the chief returns.
    """
    arguments = ["run", str(EXAMPLES / "flyte_workflow.py"), "digits", "--epochs", "8"]
    program = Path(sys.executable).with_name("pyflyte")
    run = subprocess.run([program, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert float(run.stdout.splitlines()[-1]) > 0.9
    assert "(4 replicas)" in run.stderr
