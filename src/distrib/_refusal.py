"""
How a value is refused: the field in front, so that whoever holds the field's owner can put a longer path there.
"""

from __future__ import annotations

from .errors import InvalidJobError

_LONGEST = 80


def refuse(field: str, value: object, why: str) -> InvalidJobError:
    """
    The error ``field=value: why``.

    >>> print(refuse("replicas", -1, "write 0 or more."))
    replicas=-1: write 0 or more.
    """
    return InvalidJobError(f"{field}={shown(value)}: {why}", field=field, value=value)


def under(path: str, error: InvalidJobError) -> InvalidJobError:
    """
    *error*, which names a field of what is at *path*, as seen from outside.

    >>> print(under("worker", refuse("replicas", -1, "write 0 or more.")))
    worker.replicas=-1: write 0 or more.
    >>> under("volumes[0]", refuse("", 1, "write a mapping.")).field
    'volumes[0]'
    """
    field = error.field or ""
    message = str(error)
    dot = "." if field[:1] not in {"", "["} or not message.startswith(("=", "[")) else ""
    outer = InvalidJobError(f"{path}{dot}{message}", field=f"{path}{dot if field else ''}{field}", value=error.value)
    outer.__cause__ = error.__cause__
    outer.__suppress_context__ = True
    return outer


def shown(value: object) -> str:
    """
    The value for a message: short, on one line, whatever its ``repr`` does.

    >>> shown(list(range(1000)))
    '[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, …992, 993, 994, 995, 996, 997, 998, 999]'
    """
    try:
        text = " ".join(repr(value).split())
    except Exception:  # noqa: BLE001 - a repr may raise anything, a huge int raises ValueError
        return f"<{type(value).__name__}>"
    half = _LONGEST // 2
    return text if len(text) <= _LONGEST else f"{text[: half - 1]}…{text[1 - half :]}"


def a_or_an(name: str) -> str:
    """
    A name with its article.

    >>> a_or_an("Role"), a_or_an("Elastic")
    ('a Role', 'an Elastic')
    """
    return f"{'an' if name[:1] in 'AEIOaeio' else 'a'} {name}"
