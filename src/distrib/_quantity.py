"""
Kubernetes' resource quantities: ``500m``, ``4Gi``, ``1e3``.

Read, rounded and written exactly as ``resource.Quantity`` of k8s.io/apimachinery does, with two differences, both on the
side of caution. What it would cap or misprint, a value beyond 2**63 - 1, is refused. So is text without a digit (``"Ki"``),
which it reads as 0 although its own grammar rules that out.
"""

from __future__ import annotations

import operator
import re
import sys
from typing import TYPE_CHECKING

from ._refusal import refuse

if TYPE_CHECKING:
    from decimal import Decimal

    #: What a quantity may be written as.
    Amount = str | int | float | Decimal

_GRAMMAR = r"([+-]?)(?:([0-9]+)\.?([0-9]*)|\.([0-9]+))(?:([KMGTPE]i)|([numkMGTPE]?)|[eE]([+-]?[0-9]{1,19}))"
_LONGEST = 200
_LARGEST = 2**63 - 1
_LEGAL = "write a number, or a Kubernetes quantity such as 2, 0.5, '500m', '4Gi', '1.5G' or '1e3'."

_BINARY = {"": 0, "Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY_SUFFIXES = tuple(_BINARY)
_DECIMAL_SUFFIXES = {exponent: suffix for suffix, exponent in _DECIMAL.items()}

#: One unit in billionths, the finest that a quantity can tell apart.
UNIT = 10**9
#: A thousandth in billionths: what the API server rounds requests and limits up to.
MILLI = 10**6


def quantity(value: Amount, field: str = "quantity", *, finest: int = 1) -> str:
    """
    The canonical form of a quantity.

    Args:
        value: A number, or text with one of Kubernetes' suffixes.

        field: What an error calls it.

        finest: Round away from zero to a multiple of this many billionths.

    Raises:
        InvalidJobError: It is not a finite number or a legal text, or it is beyond 2**63 - 1.

    .. doctest::

        >>> from distrib._quantity import quantity
        >>> quantity(0.5), quantity("1024Mi"), quantity("1.5Gi"), quantity(2000), quantity("12e6")
        ('500m', '1Gi', '1536Mi', '2k', '12e6')
    """
    nanos, style = _parse(value, field)
    if nanos % finest:
        nanos += finest - nanos % finest if nanos > 0 else -(nanos % finest)
    return _canonical(nanos, style)


def nano(text: Amount, field: str = "quantity") -> int:
    """
    A quantity in billionths; what quantities are compared by.

    >>> nano("1Gi") > nano("1G")
    True
    """
    return _parse(text, field)[0]


def as_int(value: object) -> int | None:
    """
    *value* as a plain int if it is a whole number, NumPy's included; a bool is none.
    """
    if isinstance(value, (bool, str, float)):
        return None
    try:
        return int(operator.index(value))  # type: ignore[arg-type]
    except TypeError:
        return None


def _parse(value: object, field: str) -> tuple[int, str]:
    text, style = _text(value, field)
    match = re.fullmatch(_GRAMMAR, text) if len(text) <= _LONGEST else None
    if match is None:
        of_bytes = " Leave the B out." if text[-1:] in ("b", "B") else ""
        raise refuse(field, value, f"this is not a quantity; {_LEGAL}{of_bytes}")
    sign, before, after, only, binary, decimal, exponent = match.groups()
    digits, fraction = (before, after) if before is not None else ("", only)
    if binary:
        nanos = _scaled(int(digits + fraction) << 10 * _BINARY[binary], 9 - len(fraction))
        style = style or "binary"
    else:
        scale = _DECIMAL[decimal] if exponent is None else int(exponent)
        nanos = _scaled(int(digits + fraction), scale + 9 - len(fraction))
        style = style or ("decimal" if exponent is None else "exponent")
    if nanos > _LARGEST * UNIT:
        raise refuse(field, value, "no quantity is larger than 2**63 - 1 (just under '8Ei').")
    return (-nanos if sign == "-" else nanos), style


def _text(value: object, field: str) -> tuple[str, str]:
    """
    The digits of *value*, and the style that numbers are written in.
    """
    if isinstance(value, str):
        return str(value), ""
    number = as_int(value)
    if number is not None:
        # An int of thousands of digits has no text.
        return (str(number) if abs(number) <= _LARGEST else "9" * 30), "decimal"
    if isinstance(value, float):
        return float.__repr__(value), "decimal"
    # Whoever has a Decimal has imported decimal; nobody else is made to.
    decimal = sys.modules.get("decimal")
    if decimal is not None and isinstance(value, decimal.Decimal):
        return str(value), "decimal"
    raise refuse(field, value, f"this is not a quantity; {_LEGAL}")


def _scaled(mantissa: int, exponent: int) -> int:
    """
    ``mantissa * 10**exponent``, rounded up; never by way of a huge power.
    """
    if mantissa == 0:
        return 0
    power: int = 10 ** min(abs(exponent), _LONGEST + 40)
    return mantissa * power if exponent >= 0 else -(-mantissa // power)


def _canonical(nanos: int, style: str) -> str:
    if nanos == 0:
        return "0"
    if style == "binary" and abs(nanos) >= 1024 * UNIT and nanos % UNIT == 0:
        return _written_binary(nanos // UNIT)
    exponent = -9
    while nanos % 1000 == 0:
        nanos //= 1000
        exponent += 3
    if style != "exponent":
        return f"{nanos}{_DECIMAL_SUFFIXES[exponent]}"
    return f"{nanos}e{exponent}" if exponent else str(nanos)


def _written_binary(number: int) -> str:
    power = 0
    while number % 1024 == 0:
        number //= 1024
        power += 1
    return f"{number}{_BINARY_SUFFIXES[power]}"
