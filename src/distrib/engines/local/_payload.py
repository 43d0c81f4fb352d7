"""
The call on its way to the replicas: a function, its arguments, in memory that all of them map.
"""

from __future__ import annotations

import io
import os
import pickle
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ...errors import InvalidJobError
from ._replica import is_plain

if TYPE_CHECKING:
    from ...engine import Call

# What SIMD code likes; views of arrays are then as well aligned as fresh ones.
_ALIGNMENT = 64


def dump_call(call: Call[Any], function: Callable[..., Any], payload: int) -> list[list[int]]:
    """
    Pickle *function*, which stands for that of *call*, and the arguments into *payload*.

    Returns:
        Offset and size of each part: the pickle first, then its large buffers.

    Raises:
        InvalidJobError: Something cannot be pickled; the message names it.
    """
    buffers: list[pickle.PickleBuffer] = []
    target = reference(function) or function
    arguments = (tuple(call.args), dict(call.kwargs))
    try:
        stream = _dumps((target, arguments), buffers.append)
    except Exception as error:
        raise _unpicklable(call, error) from error
    return _write(payload, [stream, *(buffer.raw() for buffer in buffers)])


def _dumps(value: Any, keep: Callable[[pickle.PickleBuffer], Any] | None = None) -> bytes:
    target, arguments = value
    if isinstance(target, str) and is_plain(arguments, depth=4):
        return pickle.dumps(value, protocol=5)
    import cloudpickle

    stream = io.BytesIO()
    # A buffer is kept out of the stream when the callback returns something false, as append does.
    cloudpickle.Pickler(stream, protocol=5, buffer_callback=keep).dump(value)
    return stream.getvalue()


def _write(payload: int, parts: Iterable[bytes | memoryview]) -> list[list[int]]:
    layout = []
    at = 0
    for part in parts:
        at = -(-at // _ALIGNMENT) * _ALIGNMENT
        view = memoryview(part)
        layout.append([at, view.nbytes])
        done = 0
        while done < view.nbytes:  # a single write takes 2 GiB at most
            done += os.pwrite(payload, view[done:], at + done)
        at += done
    return layout


def reference(function: Callable[..., Any]) -> str | None:
    """
    ``"module:name"`` if importing the module in another process gives the same function; None if it has to travel itself.
    """
    module, path = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if module in (None, "__main__") or module not in sys.modules or "<" in path or not path:
        return None
    if not _is_importable(module):
        return None
    found: Any = sys.modules[module]
    for part in path.split("."):
        found = getattr(found, part, None)
    if hasattr(found, "__distrib_task__"):
        found = found.function
    return f"{module}:{path}" if found is function else None


def _is_importable(module: str) -> bool:
    # A module that was made by hand, or run under another name, is not there in another process.
    spec = getattr(sys.modules[module], "__spec__", None)
    return spec is not None and spec.origin is not None


def _unpicklable(call: Call[Any], error: Exception) -> InvalidJobError:
    for place, value in _suspects(call):
        try:
            _dumps((value, ()))
        except Exception as own:
            return InvalidJobError(
                f"{place} of {call.name}() cannot be sent to the replicas: a {type(value).__qualname__} cannot be pickled "
                f"({_first_line(own)}). Make it inside the function instead.",
                field=place,
                value=value,
            )
    return InvalidJobError(f"{call.name}() cannot be sent to the replicas: {_first_line(error)}", field="function", value=call.function)


def _suspects(call: Call[Any]) -> Iterable[tuple[str, Any]]:
    names = getattr(getattr(call.function, "__code__", None), "co_varnames", ())
    for index, value in enumerate(call.args):
        yield f"argument {names[index] if index < len(names) else index!r}", value
    for name, value in call.kwargs.items():
        yield f"argument {name}", value
    if getattr(call.function, "__self__", None) is not None:
        yield "the object", call.function.__self__  # type: ignore[attr-defined]
    code = getattr(call.function, "__code__", None)
    cells = getattr(call.function, "__closure__", None) or ()
    for name, cell in zip(getattr(code, "co_freevars", ()), cells, strict=False):
        yield f"the variable {name}", cell.cell_contents
    variables = getattr(call.function, "__globals__", {})
    for name in getattr(code, "co_names", ()):
        if name in variables:
            yield f"the global {name}", variables[name]


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
