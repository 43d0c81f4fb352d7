"""
What goes to the pods beside a call: the project's own modules, and nothing that an image has.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

#: A project as its people have it, run as a script.
PROJECT = {
    "train.py": """
        import numpy, attrs
        import models.net, flat, shared.util, helper_of_test
        import distrib
        from distrib.engines.kubernetes._pack import is_local, pack_modules
        import io, sys, zipfile
        first = pack_modules()
        assert first == pack_modules()
        print("\\n".join(sorted(zipfile.ZipFile(io.BytesIO(first)).namelist())))
        sys.stderr.write(" ".join(str(is_local(n)) for n in ("models.net", "numpy.linalg", "json", "distrib.engine", "__main__", "flat")))
    """,
    "flat.py": "x = 1",
    "later.py": "imported by the function only",
    "helper_of_test.py": "",
    "models/__init__.py": "",
    "models/net.py": "",
    "models/sub/more.py": "not loaded, and packed with its package",
    "models/words.txt": "data of the package",
    "models/.hidden": "",
    "models/__pycache__/net.cpython-311.pyc": "",
    "shared/util.py": "in a package without an __init__.py",
    "not a module.py": "",
}


@pytest.fixture(name="project")
def _project(tmp_path: Path) -> Path:
    """Its folder."""
    for name, text in PROJECT.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text) if name == "train.py" else f"# {text}\n")
    (tmp_path / "models" / "weights.bin").write_bytes(bytes(300 * 1024))
    return tmp_path


def test_the_projects_modules_go_along(project: Path) -> None:
    """Packages whole, with their small files; those that lie beside the program; always as the same bytes."""
    done = subprocess.run([sys.executable, "train.py"], cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        "flat.py",
        "helper_of_test.py",
        "later.py",
        "models/__init__.py",
        "models/net.py",
        "models/sub/more.py",
        "models/words.txt",
        "shared/util.py",
        "train.py",
    ]
    assert done.stderr == "True False False False False True"


def test_a_program_that_is_installed_has_no_modules(tmp_path: Path) -> None:
    """Nothing is packed for what every image with these packages has."""
    program = "from distrib.engines.kubernetes._pack import pack_modules; print(len(pack_modules()))"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"
