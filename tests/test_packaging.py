"""
What is installed is what was promised.
"""

import sys
import zipfile
from importlib.metadata import metadata, requires, version
from pathlib import Path

import pytest

import distrib

ROOT = Path(__file__).parent.parent


def test_version_is_the_metadata() -> None:
    """
    ``distrib.__version__`` is the version that was installed.
    """
    assert distrib.__version__ == version("distrib")


def test_public_names_exist() -> None:
    """
    Each name of ``__all__`` can be had, and ``dir``, which completes them at a prompt, shows these alone.
    """
    for name in distrib.__all__:
        assert getattr(distrib, name) is not None
    assert dir(distrib) == sorted(distrib.__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    """
    A name that is not there is refused as in any module.
    """
    with pytest.raises(AttributeError, match="distribute"):
        distrib.distribute  # noqa: B018


def test_core_needs_only_four_packages() -> None:
    """
    Whoever installs the core gets four small packages, and no framework.
    """
    needed = [line for line in requires("distrib") or [] if "extra ==" not in line]
    assert {line.partition(">")[0] for line in needed} == {"attrs", "cattrs", "cloudpickle", "platformdirs"}


def test_licence_and_types_are_declared() -> None:
    """
    The licence is Apache-2.0, and the package says that it is typed.
    """
    assert metadata("distrib")["License-Expression"] == "Apache-2.0"
    assert (Path(distrib.__file__).parent / "py.typed").is_file()


def test_classifiers_say_what_is_supported() -> None:
    """
    The interpreter that runs the tests is one of those declared.
    """
    declared = metadata("distrib").get_all("Classifier")
    assert declared is not None
    assert f"Programming Language :: Python :: {sys.version_info.major}.{sys.version_info.minor}" in declared


def test_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    """
    The wheel holds each module, ``py.typed`` and the licence; no tests, no benches.
    """
    builder = pytest.importorskip("hatchling.builders.wheel", reason="the build tool is not installed here").WheelBuilder
    (path,) = builder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    names = zipfile.ZipFile(path).namelist()
    modules = {f"distrib/{path.relative_to(ROOT / 'src/distrib')}" for path in (ROOT / "src/distrib").rglob("*.py")}
    assert modules <= set(names)
    assert "distrib/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert all(name.startswith(("distrib/", "distrib-")) for name in names)
