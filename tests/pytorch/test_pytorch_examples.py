"""
The examples of PyTorch and JAX, run as users run them.
"""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = [pytest.mark.slow]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("digits_ddp.py", ()),
        ("digits_elastic.py", ("rank 0 resumes in epoch 8", "rank 1 resumes in epoch 8")),
        ("digits_fsdp.py", ("rank 0 holds 2405 of 4810 parameters", "rank 1 holds 2405 of 4810 parameters")),
        ("digits_jax.py", ()),
    ],
)
def test_accuracy(name: str, said: tuple[str, ...]) -> None:
    """
    It learns most digits, the way it says.
    """
    pytest.importorskip("jaxlib" if "jax" in name else "torch")
    if "jax" in name and version("jax").startswith("0.4."):
        pytest.skip("JAX 0.4 computes across processes only on accelerators")
    run = subprocess.run([sys.executable, EXAMPLES / name], capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    found = re.search(r"^accuracy (\d\.\d+)$", run.stdout, re.MULTILINE)
    assert found, run.stdout
    assert float(found[1]) > 0.9
    for each in said:
        assert each in run.stdout
