"""
Arrows point one way, and importing costs nothing.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest

import distrib

PACKAGE = Path(distrib.__file__).parent
MODULES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))

#: A module, or a folder of modules, imports only what stands on an earlier line than itself (or is in its own folder).
LEVELS = (
    {"errors", "_linux", "_pickling", "_pytest", "_processors", "_report", "_streams"},
    {"_cancelling", "_command", "_outcome", "_refusal"},
    {"_frozen", "_quantity"},
    {"_fields"},
    {"_cluster", "_model"},
    {"_flyte_wire", "manifests"},
    {"_processes", "backend", "engine"},
    {"backends", "_registry", "_keras"},
    {"_keywords"},
    {"_job", "pytorch", "tensorflow"},
    {"_converter"},
    {"engines"},
    {"compat"},
    {"_decorator"},
    {"_flyte"},
    {"__init__"},
    {"testing"},
)

#: What only runs inside replicas may name its framework at the top; all else imports it in the function that needs it.
HEAVY = {"tensorflow", "keras", "tf_keras", "torch", "jax", "numpy", "flytekit", "kubernetes", "hypothesis", "pytest", "IPython"}

#: What flytekit loads, or what is loaded once flytekit is.
FLYTEKITS = {"_flyte.py", "compat/_tasks.py", "engines/flyte/_resolver.py", "engines/flyte/_task.py"}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """
    The absolute names that a module imports when it runs, and whether it does so at its top.
    """
    package = ("distrib", *path.relative_to(PACKAGE).parent.parts)
    waiting: list[tuple[ast.AST, bool]] = [(ast.parse(path.read_text(encoding="utf-8")), True)]
    while waiting:
        node, top = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield from ((name, top) for name in named(node, package))
        top &= not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        waiting += [(child, top) for child in ast.iter_child_nodes(node)]


def named(node: ast.AST, package: tuple[str, ...]) -> list[str]:
    """
    What one import statement inside of *package* names.
    """
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    parents = package[: len(package) + 1 - node.level] if node.level else ()
    base = ".".join((*parents, *([node.module] if node.module else [])))
    # `from . import errors` imports a module; `from .errors import X` names something inside of one.
    modules = [f"{base}.{alias.name}" for alias in node.names if is_module(f"{base}.{alias.name}")]
    return modules or [base]


def is_module(name: str) -> bool:
    """
    Whether a dotted name is a module of ours.
    """
    place = PACKAGE.parent.joinpath(*name.split("."))
    return place.with_suffix(".py").is_file() or place.is_dir()


def piece(name: str) -> str | None:
    """
    Which piece of LEVELS a dotted name of ours belongs to; None for the name of another package.
    """
    first, *rest = name.split(".")
    return None if first != "distrib" else rest[0] if rest else "__init__"


def imported_pieces(path: Path) -> set[str]:
    """
    The other pieces that a module of ours imports.
    """
    return {other for name, _ in imports(path) if (other := piece(name))} - {own_piece(path)}


def own_piece(path: Path) -> str:
    """
    The piece that a file belongs to.
    """
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_module_has_its_place() -> None:
    """
    A new module is given its level here, before it imports anything.
    """
    known = set().union(*LEVELS)
    assert {own_piece(PACKAGE / module) for module in MODULES} <= known


@pytest.mark.parametrize("module", MODULES)
def test_arrows_point_one_way(module: str) -> None:
    """
    A module imports only what stands below it: no cycles, no backend that knows an engine, nothing that knows ``testing``.
    """
    own = own_piece(PACKAGE / module)
    below = set().union(*takewhile(lambda level: own not in level, LEVELS))
    assert imported_pieces(PACKAGE / module) <= below


@pytest.mark.parametrize("module", MODULES)
def test_only_the_registry_names_backends(module: str) -> None:
    """
    Whatever is no backend itself knows backends by their base class alone; the registry names them in a table of strings.
    """
    if own_piece(PACKAGE / module) not in {"backends", "pytorch", "tensorflow"}:
        assert not imported_pieces(PACKAGE / module) & {"backends", "pytorch", "tensorflow", "_keras"}


@pytest.mark.parametrize("module", MODULES)
def test_no_framework_at_the_top_of_a_module(module: str) -> None:
    """
    Frameworks and kits are imported by the function that needs them; only ``testing``, and what flytekit loads, is made for one.
    """
    if own_piece(PACKAGE / module) != "testing" and module not in FLYTEKITS:
        assert not {name.partition(".")[0] for name, top in imports(PACKAGE / module) if top} & HEAVY


@pytest.mark.parametrize("statement", ["import distrib", "from distrib import distributed", "from distrib import *"])
def test_importing_brings_no_framework(statement: str) -> None:
    """
    In a fresh interpreter, neither the package nor its whole public surface imports a framework or a kit.
    """
    code = f"{statement}\nimport sys\nprint(*sorted(set(map(lambda name: name.partition('.')[0], sys.modules))))"
    brought = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not set(brought) & (HEAVY | {"yaml", "psutil", "asyncio"})


def test_import_distrib_loads_nothing_but_itself() -> None:
    """
    ``import distrib`` runs one module of ours, and not even attrs.
    """
    code = "import distrib, sys\nprint(*(name for name in sys.modules if name.startswith(('distrib', 'attr'))))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split() == ["distrib"]
