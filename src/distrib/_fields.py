"""
What the fields of the model accept. Each rule takes what users write and gives what is stored, or refuses it.

A rule does not know its field's name: :func:`named` puts it in front of whatever a rule refuses.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from ._frozen import EMPTY, FrozenMap, checked_text, freeze
from ._quantity import MILLI, UNIT, as_int, nano, quantity
from ._refusal import a_or_an, refuse, shown, under
from .errors import InvalidJobError, did_you_mean

if TYPE_CHECKING:
    from ._quantity import Amount

T = TypeVar("T")
E = TypeVar("E", bound=Enum)

#: What Kubernetes stores counts and seconds in.
INT32 = 2**31 - 1

_LONGEST_KEY = 64

_PART = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_LABEL = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
# The look ahead comes first: it bounds what the rest may try.
_SUBDOMAIN = rf"(?=[^/]{{1,253}}(?:/|\Z)){_LABEL}(?:\.{_LABEL})*"

#: kind of name -> (what it must match, what to write)
_NAMES = {
    "label": (r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?", "write at most 63 lower-case letters, digits and '-', a letter first, no '-' last."),
    "subdomain": (_SUBDOMAIN, "write a Kubernetes name: lower-case letters, digits, '-' and '.', a letter or digit at both ends."),
    "qualified": (rf"(?:{_SUBDOMAIN}/)?{_PART}", "write a Kubernetes label key, such as 'app' or 'example.com/app'."),
    "label value": (rf"(?:{_PART})?", "write at most 63 letters, digits, '-', '_' and '.', a letter or digit at both ends."),
    "image": (r"[!-~]{1,1024}", "write the name of a container image, such as 'registry.example.com/train:1'."),
    "path": (r"/[^\x00:]{0,4095}", "write an absolute path without ':'."),
    "relative path": (r"(?!/)(?!(?:.*/)?\.\.(?:/|\Z))[^\x00]+", "write a path within the volume: relative, without '..'."),
    "nfs": (r"[^\s:/\x00]+:/[^\x00]*", "write 'server:/exported/path'."),
    "variable": (r"[ -<>-~]+", "name a variable with printable ASCII characters other than '='."),
    "resource": (
        rf"(?!requests\.)(?!(?:[^/]*\.)?kubernetes\.io/){_SUBDOMAIN}/{_PART}|hugepages-[0-9]+[KMGTPE]?i?",
        "write a resource's full name, such as 'rdma/hca', 'amd.com/gpu' or 'hugepages-2Mi'.",
    ),
}


def named_under(prefix: str) -> Callable[[type, list[attrs.Attribute[Any]]], list[attrs.Attribute[Any]]]:
    """
    A ``field_transformer``: whatever a rule refuses, or trips over, is told with the field's name behind *prefix*.
    """

    def named(_owner: type, fields: list[attrs.Attribute[Any]]) -> list[attrs.Attribute[Any]]:
        return [
            field.evolve(converter=_telling(f"{prefix}{field.name}", field.converter)) if field.converter else field for field in fields
        ]

    return named


#: That of the model's classes.
named = named_under("")


def _telling(name: str, rule: Any) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        return attempt(name, rule, value)

    return convert


def attempt(field: str, rule: Callable[[Any], T], value: Any) -> T:
    """
    ``rule(value)``; whatever goes wrong is an InvalidJobError about *field*.
    """
    try:
        return rule(value)
    except InvalidJobError as error:
        raise under(field, error) from None
    except RecursionError as error:
        raise refuse(field, None, "nested too deeply to be read.") from error
    except Exception as error:  # objects of the user's may raise anything when they are looked at
        raise refuse(field, value, f"reading it raised {type(error).__name__}: {_said(error)}") from error


def _said(error: Exception) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - see attempt
        return ""


# Text


def text(value: str) -> str:
    """
    Text that can be written anywhere.
    """
    if not isinstance(value, str):
        raise refuse("", value, "write text.")
    if "\0" in value:
        raise refuse("", value, "text cannot hold a NUL character.")
    return checked_text(str.__str__(value))


def name(kind: str, value: str) -> str:
    """
    A name of one of the kinds in ``_NAMES``.
    """
    pattern, remedy = _NAMES[kind]
    if not isinstance(value, str):
        raise refuse("", value, remedy)
    plain = str.__str__(value)
    if re.fullmatch(pattern, plain, re.DOTALL) is None:
        raise refuse("", plain, remedy)
    return checked_text(plain)


def label_name(value: str | None) -> str | None:
    """
    A DNS-1035 label, or None.
    """
    return None if value is None else name("label", value)


def subdomain(value: str | None) -> str | None:
    """
    The name of a Kubernetes object, or None.
    """
    return None if value is None else name("subdomain", value)


def subdomains(value: Iterable[str]) -> tuple[str, ...]:
    """
    Names of Kubernetes objects.
    """
    return sequence(lambda item: name("subdomain", item), value)


def label_key(value: str | None) -> str | None:
    """
    The key of a label or taint, or None.
    """
    return None if value is None else name("qualified", value)


def label_value(value: str | None) -> str | None:
    """
    The value of a label or taint, or None.
    """
    return None if value is None else name("label value", value)


def image(value: str | None) -> str | None:
    """
    The name of a container image, or None.
    """
    return None if value is None else name("image", value)


def mount_path(value: str) -> str:
    """
    Where something is mounted.
    """
    return name("path", value)


def sub_path(value: str | None) -> str | None:
    """
    A path within a volume, or None.
    """
    return None if value is None else name("relative path", value)


def nfs(value: str | None) -> str | None:
    """
    Server and path of a network file system, or None.
    """
    return None if value is None else name("nfs", value)


# Numbers and flags


def flag(value: bool) -> bool:
    """
    True or False, and nothing that merely looks like them.
    """
    if not isinstance(value, bool):
        raise refuse("", value, "write True or False.")
    return value


def number(value: int, least: int, why: str = "") -> int:
    """
    A whole number from *least* to 2**31 - 1.
    """
    found = as_int(value)
    if found is None or not least <= found <= INT32:
        raise refuse("", value, f"write a whole number from {least} to {INT32}{why}.")
    return found


def count(value: int) -> int:
    """
    0 or more.
    """
    return number(value, 0)


def optional_count(value: int | None) -> int | None:
    """
    0 or more, or None.
    """
    return None if value is None else number(value, 0)


def positive(value: int | None) -> int | None:
    """
    1 or more, or None.
    """
    return None if value is None else number(value, 1)


def nodes(value: int | str) -> tuple[int, int]:
    """
    The fewest and the most nodes: of ``2``, ``"2"`` or ``"1:2"``.

    >>> nodes(2), nodes("1:2")
    ((2, 2), (1, 2))
    """
    if not isinstance(value, str):
        return (number(value, 1),) * 2
    least, colon, most = value.partition(":")
    if not all(part.isascii() and part.isdecimal() for part in (least, most or least)) or (colon and not most):
        raise refuse("", value, "write a number of nodes, or the fewest and the most, as in '1:4'.")
    if not 1 <= int(least) <= int(most or least):
        raise refuse("", value, "write at least one node, and the fewest first, as in '1:4'.")
    return int(least), int(most or least)


def deadline(value: int | None) -> int | None:
    """
    1 second or more, or None.
    """
    return None if value is None else number(value, 1, "; 0 would end the run before it starts, None sets no deadline")


def size(value: Amount | None) -> str | None:
    """
    What :func:`size_of` gives, or None.
    """
    return None if value is None else size_of(value)


def size_of(value: Amount) -> str:
    """
    A quantity of 0 or more in canonical form. As the API server does, thousandths are the finest.
    """
    found = quantity(value, "", finest=MILLI)
    if found.startswith("-"):
        raise refuse("", value, "write 0 or more.")
    return found


def devices(value: Amount | None) -> int | None:
    """
    A whole number of devices, or None.
    """
    nanos = nano(size(value) or 0)
    if nanos % UNIT or nanos > INT32 * UNIT:
        raise refuse("", value, "write a whole number; devices are not shared.")
    return None if value is None else nanos // UNIT


# Words


def word(words: type[E], value: E | str) -> E:
    """
    A member of *words*: itself, its value, or either of its spellings in any case, with or without ``_`` and ``-``.
    """
    if isinstance(value, words):
        return value
    if isinstance(value, str):
        found: E | None = _spellings(words).get(_bare(value))
        if found is not None:
            return found
    raise refuse("", value, f"no such word.{nearest(value, [member.value or repr('') for member in words])}")


def _bare(spelling: str) -> str:
    return spelling.replace("_", "").replace("-", "").casefold()


@functools.cache
def _spellings(words: type[E]) -> dict[str, E]:
    return {_bare(spelling): member for member in words for spelling in (member.name, member.value)}


# Collections


def sequence(rule: Callable[[Any], T], value: Iterable[Any]) -> tuple[T, ...]:
    """
    A tuple of what *rule* makes of each item.
    """
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise refuse("", value, "write a list.")
    return tuple(attempt(f"[{place}]", rule, item) for place, item in enumerate(value))


def mapping(key_kind: str, rule: Callable[[Any], T], value: Mapping[str, Any]) -> Mapping[str, T]:
    """
    A frozen copy with keys of one of the kinds in ``_NAMES`` and what *rule* makes of each value.
    """
    if not isinstance(value, Mapping):
        raise refuse("", value, "write a mapping, such as {'name': 'value'}.")
    items = {}
    for key, item in value.items():
        place = f"[{shown(key)}]"
        items[attempt(place, lambda key: name(key_kind, key), key)] = attempt(place, rule, item)
    return FrozenMap(items) if items else EMPTY


def variable(value: str) -> str:
    """
    The value of an environment variable.
    """
    if not isinstance(value, str):
        remedy = f"write {shown(value)!r}" if type(value) in (int, float) else "write text"
        raise refuse("", value, f"the value of an environment variable is text; {remedy}.")
    return text(value)


def environment(value: Mapping[str, str]) -> Mapping[str, str]:
    """
    Environment variables.
    """
    return mapping("variable", variable, value)


def label_map(value: Mapping[str, str]) -> Mapping[str, str]:
    """
    Kubernetes labels, or what selects by them.
    """
    return mapping("qualified", lambda item: name("label value", item), value)


def annotation_map(value: Mapping[str, str]) -> Mapping[str, str]:
    """
    Kubernetes annotations.
    """
    return mapping("qualified", text, value)


def sizes(value: Mapping[str, Amount]) -> Mapping[str, str]:
    """
    Resources that have no field of their own; devices come in whole numbers.
    """
    found = mapping("resource", _anything, value)
    return FrozenMap({key: attempt(f"[{key!r}]", _device_count if "/" in key else size_of, item) for key, item in found.items()})


def _anything(value: Any) -> Any:
    return value


def _device_count(value: Amount) -> str:
    return str(devices(size_of(value)))


def plain(value: Mapping[str, Any], *, objects: bool = False) -> Mapping[str, Any]:
    """
    A mapping of plain data, frozen to its depth; with *objects* it may hold anything else too.
    """
    if not isinstance(value, Mapping):
        raise refuse("", value, "write a mapping.")
    frozen: Mapping[str, Any] = freeze(value, objects=objects)
    return frozen


def field_names(kind: type) -> list[str]:
    """
    The keywords that a class of attrs takes.
    """
    return [field.alias or field.name for field in attrs.fields(kind) if field.init]


def build(kind: type[T], value: T | Mapping[str, Any]) -> T:
    """
    An object of a class of the model: itself, or made of a mapping of its fields.
    """
    if isinstance(value, kind):
        return value
    fields = {field.name: field.default for field in attrs.fields(kind)}  # type: ignore[arg-type]
    if not isinstance(value, Mapping):
        raise refuse("", value, f"write {a_or_an(kind.__name__)}, or a mapping with any of {', '.join(fields)}.")
    given = dict(value)
    for key, item in given.items():
        if key not in fields:
            raise refuse(as_path(key), item, f"{kind.__name__} has no such field.{nearest(key, fields)}")
    for field, default in fields.items():
        if default is attrs.NOTHING and field not in given:
            raise refuse("", value, f"{kind.__name__} needs {field}.")
    return kind(**given)


def as_path(key: object) -> str:
    """
    A key as part of a path: as it is if it is a name, else in brackets.
    """
    return str.__str__(key) if isinstance(key, str) and key.isidentifier() and len(key) <= _LONGEST_KEY else f"[{shown(key)}]"


def nearest(key: object, legal: Iterable[str]) -> str:
    """
    The end of a message about a key that is none of the *legal* ones.
    """
    return did_you_mean(str.__str__(key)[:_LONGEST_KEY] if isinstance(key, str) else shown(key), legal)
