"""
The local engine's own options: what ``.on("local", ...)`` takes.
"""

from __future__ import annotations

import math

import attrs

from ...errors import InvalidJobError, did_you_mean

_START_METHODS = ("auto", "fork", "spawn")


def _seconds(instance: object, attribute: attrs.Attribute[float], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise InvalidJobError(f"local.{attribute.name}={value!r}: write seconds, 0 or more.", field=f"local.{attribute.name}", value=value)


def _start_method(instance: object, attribute: attrs.Attribute[str], value: object) -> None:
    if value not in _START_METHODS:
        raise InvalidJobError(
            f"local.start_method={value!r}: no such start method.{did_you_mean(str(value), _START_METHODS)}",
            field="local.start_method",
            value=value,
        )


def _flag(instance: object, attribute: attrs.Attribute[bool], value: object) -> None:
    if not isinstance(value, bool):
        raise InvalidJobError(f"local.{attribute.name}={value!r}: write True or False.", field=f"local.{attribute.name}", value=value)


def _modules(value: object) -> bool | tuple[str, ...] | None:
    if value is None or isinstance(value, bool):
        return value
    names = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, (list, tuple)) else (None,)
    if all(isinstance(name, str) and all(part.isidentifier() for part in name.split(".")) for name in names):
        return names
    raise InvalidJobError(
        f"local.preload={value!r}: write True, False or names of modules, as in preload=('tensorflow', 'keras').",
        field="local.preload",
        value=value,
    )


@attrs.frozen(kw_only=True)
class LocalOptions:
    """
    How the local engine runs a job.

    Args:
        grace_period: Seconds between SIGTERM and SIGKILL; also how long the other replicas may still run when the run has
            succeeded, and how long a replica that has returned may take to end.

        restart_delay: Seconds before a replica's first restart; doubled with each further one, up to 300.

        preload: Modules to import once, in the process that replicas are forked from. None leaves it to the engine, which
            imports the framework if the function's code or module names it; True always imports it, False never.

        start_method: ``"auto"`` or ``"fork"``: replicas are forked from a process that has imported the framework, where that is
            safe; ``"spawn"``: each starts a fresh interpreter.

        echo: Whether to show what the replicas write, and what becomes of the run, while it runs.
    """

    grace_period: float = attrs.field(default=10.0, validator=_seconds)
    restart_delay: float = attrs.field(default=1.0, validator=_seconds)
    preload: bool | tuple[str, ...] | None = attrs.field(
        default=None, converter=_modules, metadata={"examples": ("json", ("json", "decimal"))}
    )
    start_method: str = attrs.field(default="auto", validator=_start_method, metadata={"examples": _START_METHODS})
    echo: bool = attrs.field(default=True, validator=_flag)
