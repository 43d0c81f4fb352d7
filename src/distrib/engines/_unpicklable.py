"""
Which part of a call it is that cannot be pickled.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

from .._refusal import a_or_an
from ..errors import InvalidJobError
from ._calls import dump_call, reference

if TYPE_CHECKING:
    from ..engine import Call

# Field, how the message calls it, and its value.
_Suspect = tuple[str, str, Any]


def explain(call: Call[Any], error: Exception) -> InvalidJobError:
    """
    The error that names what keeps *call* from being pickled, which *error* has told in pickle's words.
    """
    with Path(os.devnull).open("wb") as nowhere:
        for field, place, value in _suspects(call):
            try:
                dump_call(value, (), {}, file=nowhere)
            except Exception as own:  # noqa: BLE001, PERF203  # its class decides what that raises
                return InvalidJobError(
                    f"{place} cannot be sent to the replicas: {a_or_an(type(value).__qualname__)} cannot be pickled "
                    f"({_first_line(own)}). Make it inside the function instead.",
                    field=field,
                    value=value,
                )
    return InvalidJobError(f"{call.name}() cannot be sent to the replicas: {_first_line(error)}", field="function", value=call.function)


def _suspects(call: Call[Any]) -> Iterator[_Suspect]:
    for name, value in _arguments(call):
        yield name, f"argument {name} of {call.name}()", value
    # What stands in the place of a function holds it under this name.
    function = getattr(call.function, "function", call.function)
    while isinstance(function, partial):
        given = [*((str(place), value) for place, value in enumerate(function.args)), *function.keywords.items()]
        yield from ((name, f"argument {name} of the partial {call.name}()", value) for name, value in given)
        function = function.func
    owner = getattr(function, "__self__", None)
    if owner is not None:
        yield "self", f"the object of the method {call.name}()", owner
    yield from _variables(getattr(function, "__func__", function), set())


def _arguments(call: Call[Any]) -> Iterator[tuple[str, Any]]:
    try:
        bound = inspect.signature(call.function).bind(*call.args, **call.kwargs)
    except (TypeError, ValueError):  # a built-in function that does not tell
        yield from ((str(place), value) for place, value in enumerate(call.args))
        yield from call.kwargs.items()
        return
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            yield from ((f"{name}[{place}]", each) for place, each in enumerate(value))
        elif kind is inspect.Parameter.VAR_KEYWORD:
            yield from value.items()
        else:
            yield name, value


def _variables(function: Callable[..., Any], seen: set[int]) -> Iterator[_Suspect]:
    """
    What travels along with a function, those of the functions that it uses first.
    """
    if not isinstance(function, FunctionType) or id(function) in seen or reference(function) is not None:
        return
    seen.add(id(function))
    name = function.__name__
    own = {}
    for variable, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        with suppress(ValueError):  # not filled yet
            own[variable] = cell.cell_contents
    defaults = [each for each in inspect.signature(function).parameters.values() if each.default is not each.empty]
    used = sorted(_globals_used(function.__code__) & function.__globals__.keys())
    shared = {variable: function.__globals__[variable] for variable in used}
    found = [(variable, f"the variable {variable} of {name}()", value) for variable, value in own.items()]
    found += [(variable, f"the global {variable} of {name}()", value) for variable, value in shared.items()]
    found += [(each.name, f"the default of {each.name} of {name}()", each.default) for each in defaults]
    for _, _, value in found:
        yield from _variables(value, seen)
    yield from found


def _globals_used(code: CodeType) -> set[str]:
    # Only needed when something is wrong.
    from dis import get_instructions

    used = {str(step.argval) for step in get_instructions(code) if step.opname == "LOAD_GLOBAL"}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            used |= _globals_used(constant)
    return used


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
