"""
The project's own modules, packed beside a call: those that are loaded, or lie beside the program, and that no package has installed.
"""

from __future__ import annotations

import io
import os
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

__all__ = ["is_local", "is_of_tests", "pack_modules"]

#: Larger files are data, which belong into the image or into a volume.
LARGEST = 256 * 1024
#: The same bytes for the same files, whenever they were written.
_WHEN = (1980, 1, 1, 0, 0, 0)
_SKIPPED = frozenset({"__pycache__", "node_modules"})


def pack_modules() -> bytes:
    """
    A zip file of the project's modules, their packages whole, as they lie below a folder of ``sys.path``; empty if there are none.
    """
    files = dict(sorted(_files()))
    if not files:
        return b""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in files.items():
            archive.writestr(zipfile.ZipInfo(name, _WHEN), path.read_bytes(), zipfile.ZIP_DEFLATED)
    return held.getvalue()


def is_local(name: str) -> bool:
    """
    Whether a module that is loaded belongs to the project, and to no package that an image would have installed.
    """
    top = name.partition(".")[0]
    # distrib is in the image; the program itself is no module.
    return top not in ("distrib", "__main__") and not is_of_tests(top) and any(not _is_installed(path) for path in _places(top))


def is_of_tests(name: str) -> bool:
    """
    Whether a module is one of a test suite: importing it takes pytest, so a function in it travels itself.
    """
    top = name.partition(".")[0]
    return top == "conftest" or top.startswith("test_")


def _places(top: str) -> list[Path]:
    module = sys.modules.get(top)
    file = getattr(module, "__file__", None)
    if file is not None:
        return [Path(file)]
    # A package without an __init__.py has folders only, and several of them.
    return [Path(folder) for folder in getattr(module, "__path__", ())]


def _files() -> Iterator[tuple[str, Path]]:
    tops = {name.partition(".")[0] for name in list(sys.modules)}
    for path in (path for top in tops if is_local(top) for path in _places(top) if not _is_installed(path)):
        if path.is_dir() or path.name == "__init__.py":
            yield from _of_package(path if path.is_dir() else path.parent)
        elif path.suffix == ".py":
            yield path.name, path
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    if main is not None and not _is_installed(Path(main)):
        # A module that the function itself imports is not loaded yet.
        yield from ((path.name, path) for path in Path(main).absolute().parent.glob("*.py") if _is_small(path) and path.stem.isidentifier())


def _of_package(folder: Path) -> Iterator[tuple[str, Path]]:
    for root, folders, names in os.walk(folder):
        folders[:] = [each for each in folders if each not in _SKIPPED and not each.startswith(".")]
        for name in names:
            path = Path(root, name)
            if not name.startswith(".") and path.suffix != ".pyc" and _is_small(path):
                yield str(path.relative_to(folder.parent)), path


def _is_small(path: Path) -> bool:
    try:
        return path.is_file() and path.stat().st_size <= LARGEST
    except OSError:  # gone meanwhile
        return False


def _is_installed(path: Path) -> bool:
    path = path.absolute()
    return any(part in ("site-packages", "dist-packages") for part in path.parts) or any(path.is_relative_to(kept) for kept in _kept())


@cache  # asked for each module, and slow
def _kept() -> frozenset[str]:
    return frozenset(filter(None, map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib"))))
