"""
The call on its way to the replicas: a function, its arguments, in memory that all of them map.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

from ...errors import SubmitError
from .._calls import dump_call, target_of

if TYPE_CHECKING:
    from ...engine import Call

# What SIMD code likes; views of arrays are then as well aligned as fresh ones.
_ALIGNMENT = 64


def store(call: Call[Any], function: Callable[..., Any], payload: int) -> tuple[int, int]:
    """
    Pickle *function*, which stands for that of *call*, and the arguments into *payload*.

    Returns:
        Offset and size of the table of its parts, JSON: offset and size of the pickle, then of each of its large buffers.

    Raises:
        InvalidJobError: Something cannot be pickled; the message names it.

        SubmitError: There is no room for it.
    """
    buffers: list[pickle.PickleBuffer] = []
    try:
        with open(payload, "wb", closefd=False) as file:
            try:
                dump_call(*target_of(function, call.args), dict(call.kwargs), file=file, keep=buffers.append)
            except OSError:
                raise
            except Exception as error:
                from .._unpicklable import explain

                raise explain(call, error) from error
            table = [[0, file.tell()], *(_write(file, buffer.raw()) for buffer in buffers)]
            return _write(file, memoryview(json.dumps(table).encode()))
    except OSError as error:
        raise SubmitError(f"the arguments of {call.name}() cannot be kept in memory for the replicas: {error.strerror}") from error


def _write(file: IO[bytes], part: memoryview) -> tuple[int, int]:
    file.write(bytes(-file.tell() % _ALIGNMENT))
    at = file.tell()
    file.write(part)
    return at, part.nbytes
