"""
Code that travels by its value and keeps the name of its file, by which tracebacks find the lines.
"""

from __future__ import annotations

import functools
import io
from types import CodeType
from typing import Any

__all__ = ["dumps", "pickler"]

#: What cloudpickle 3.1.3 and later write in place of the file's name.
_NAMELESS = "<dynamic-code>"


@functools.cache
def pickler() -> Any:
    """
    Cloudpickle's class, but for what becomes of the names of files.
    """
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, obj: Any) -> Any:
            return _reduce(self, obj) if isinstance(obj, CodeType) else super().reducer_override(obj)

    return Pickler


def _reduce(pickler: Any, code: CodeType) -> Any:
    make, parts = pickler.dispatch_table[CodeType](code)
    return make, tuple(code.co_filename if part == _NAMELESS and isinstance(part, str) else part for part in parts)


def dumps(value: Any) -> bytes:
    """
    Pickle *value*.

    >>> import pickle
    >>> again = pickle.loads(dumps(eval(compile("lambda: 1", "train.py", "eval"))))
    >>> again(), again.__code__.co_filename
    (1, 'train.py')
    """
    file = io.BytesIO()
    pickler()(file).dump(value)
    return file.getvalue()
