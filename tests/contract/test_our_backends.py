"""
Our own backends keep what every backend promises.
"""

import ast
from collections.abc import Mapping
from pathlib import Path

import pytest

import distrib.backend
import distrib.manifests
from distrib._registry import backend_names
from distrib.backends.tensorflow import parse_tf_config
from distrib.testing import BackendContract, Seen


def seen_by_tensorflow(environment: Mapping[str, str]) -> Seen:
    """
    What is in ``TF_CONFIG``. Evaluators are in the cluster of nobody but themselves.
    """
    if "TF_CONFIG" not in environment:
        return Seen()
    role, index, cluster = parse_tf_config(environment["TF_CONFIG"])
    training = {name: addresses for name, addresses in cluster.items() if name != "evaluator"}
    return Seen(address=cluster[role][index], cluster=training)


def seen_by_jax(environment: Mapping[str, str]) -> Seen:
    """
    What ``jax.distributed.initialize()`` takes.
    """
    return Seen(
        rank=int(environment["JAX_PROCESS_ID"]),
        world_size=int(environment["JAX_NUM_PROCESSES"]),
        coordinator=environment["JAX_COORDINATOR_ADDRESS"],
    )


def seen_by_pytorch(environment: Mapping[str, str]) -> Seen:
    """
    What ``torch.distributed.init_process_group()`` takes.
    """
    return Seen(
        rank=int(environment["RANK"]),
        world_size=int(environment["WORLD_SIZE"]),
        coordinator=f"{environment['MASTER_ADDR']}:{environment['MASTER_PORT']}",
    )


#: How each framework reads its environment. A backend that is not here fails below.
SEEN = {"tensorflow": seen_by_tensorflow, "pytorch": seen_by_pytorch, "jax": seen_by_jax}


#: Options that change what is started.
RUNS_WITH = {"pytorch": ({"nproc_per_node": 2}, {"nproc_per_node": 2, "nnodes": 2}, {"nnodes": "1:1"})}


def contract(name: str) -> type[BackendContract]:
    """
    The suite of one backend.
    """
    own = {"backend": name, "runs_with": RUNS_WITH.get(name, ()), **({"seen": staticmethod(SEEN[name])} if name in SEEN else {})}
    return type(f"Test{name.title()}", (BackendContract,), {**own, "__doc__": f"What every backend promises, of {name}."})


for each in backend_names():
    globals()[f"Test{each.title()}"] = contract(each)


@pytest.mark.parametrize("name", backend_names())
def test_each_backend_is_read_as_its_framework_does(name: str) -> None:
    """
    How the framework reads its environment is written down above, so that no law is left out.
    """
    assert name in SEEN


def test_jax_could_be_somebody_elses() -> None:
    """
    The JAX backend uses public names only, is as short as the one that is there to be copied, and no engine knows of it.
    """
    package = Path(distrib.__file__).parent
    tree = ast.parse((package / "backends" / "jax.py").read_text(encoding="utf-8"))
    ours = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("distrib")]
    public = {*distrib.__all__, *distrib.backend.__all__, *distrib.manifests.__all__}
    assert {alias.name for node in ours for alias in node.names} <= public
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            del node.body[0]
    assert len([line for line in ast.unparse(tree).splitlines() if line]) <= 60
    assert not [path for path in (package / "engines").rglob("*.py") if "jax" in path.read_text(encoding="utf-8").lower()]
