"""
Names of backends and engines -> the objects themselves.

Built-in names and those of entry points are one table. Nothing is imported before it is used, and packages are looked
through for entry points only when a name is asked for that is not built in, or all names are.

A built-in name cannot be taken: an entry point of that name is left out, and logged when it is seen. A name that two
packages give, or whose code cannot be loaded, is an error for whoever uses that name, and for nobody else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

from .errors import DistribError, UnknownBackendError, UnknownEngineError, did_you_mean

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from .backend import Backend
    from .engine import Engine

__all__ = ["Registry", "backend_names", "engine_names", "get_backend", "get_engine"]

T = TypeVar("T")


class Registry(Generic[T]):
    """
    A table of names, read-only for everybody but the packages that are installed.

    .. doctest::

        >>> from distrib._registry import backends
        >>> "tensorflow" in backends, "tensorfow" in backends
        (True, False)

    Args:
        kind: What the names are of, for messages.

        group: The entry-point group.

        built_in: Name -> ``module:Class``.

        base: Gives the class that all of them extend; called late, because its module costs an import.

        unknown: What to raise for a name that is not there.
    """

    def __init__(
        self, *, kind: str, group: str, built_in: Mapping[str, str], base: Callable[[], type[T]], unknown: type[DistribError]
    ) -> None:
        self._kind = kind
        self._group = group
        self._built_in = built_in
        self._base = base
        self._unknown = unknown
        self._objects: dict[str, T] = {}
        self._stand_ins: dict[str, T] = {}
        self._found: dict[str, list[EntryPoint]] = {}
        self._found_on: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> T:
        return self._stand_ins[name] if name in self._stand_ins else self.installed(name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self._built_in or name in self._stand_ins or name in self._entry_points())

    def __iter__(self) -> Iterator[str]:
        return iter([*self._built_in, *sorted({*self._entry_points(), *self._stand_ins} - {*self._built_in})])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __repr__(self) -> str:
        return f"<{self._kind}s: {', '.join(self)}>"

    def is_built_in(self, name: str) -> bool:
        """
        Whether the one of that name comes with distrib, and nothing stands in for it here.
        """
        return name in self._built_in and name not in self._stand_ins

    def installed(self, name: str) -> T:
        """
        What a package brings under that name, whatever stands in for it.
        """
        if name not in self._objects:
            # setdefault: of two threads, both get the same object.
            return self._objects.setdefault(name, self._checked(name, self._load(name)))
        return self._objects[name]

    @contextmanager
    def standing_in(self, name: str, made: T) -> Iterator[None]:
        """
        Have *name* mean *made* in this process for a while: how something is tested before it is installed.
        """
        before = dict(self._stand_ins)
        self._stand_ins[name] = made
        try:
            yield
        finally:
            self._stand_ins = before

    def _load(self, name: str) -> object:
        if name in self._built_in:
            module, _, attribute = self._built_in[name].partition(":")
            from importlib import import_module

            return getattr(import_module(module), attribute)
        entry_points = self._entry_points().get(name) or self._entry_points(again=True).get(name)
        if not entry_points:
            others = [other for other in self if other != name]  # one may stand in under this name
            raise self._unknown(f"{self._kind}={name!r}: no such {self._kind}.{did_you_mean(name, others)}")
        packages = " and ".join(_package(entry_point) for entry_point in entry_points)
        if len(entry_points) > 1:
            raise self._unknown(f"{self._kind}={name!r}: {packages} both bring a {self._kind} of this name; uninstall one of them.")
        try:
            return entry_points[0].load()
        except Exception as error:
            raise self._unknown(
                f"{self._kind}={name!r}: {packages} brings it as {entry_points[0].value!r}, which cannot be loaded: "
                f"{type(error).__name__}: {error}"
            ) from error

    def _checked(self, name: str, found: object) -> T:
        base = self._base()
        made = found
        if isinstance(found, type):
            try:
                made = found()
            except Exception as error:
                raise self._unknown(f"{self._kind}={name!r}: {found.__qualname__}() raised {type(error).__name__}: {error}") from error
        if not isinstance(made, base):
            raise self._unknown(f"{self._kind}={name!r}: {found!r} is no {base.__name__}.")
        own = getattr(made, "name", None)
        if own != name:
            raise self._unknown(f"{self._kind}={name!r}: {found!r} calls itself {own!r}; name and entry point have to agree.")
        return made

    def _entry_points(self, *, again: bool = False) -> dict[str, list[EntryPoint]]:
        path = tuple(sys.path)
        if again or path != self._found_on:
            self._found, self._found_on = self._scan(), path
        return self._found

    def _scan(self) -> dict[str, list[EntryPoint]]:
        # Imported here: it takes as long as all of the core.
        from importlib.metadata import entry_points

        found: dict[str, list[EntryPoint]] = {}
        for entry_point in entry_points(group=self._group):
            if entry_point.name in self._built_in:
                self._warn(entry_point)
            else:
                found.setdefault(entry_point.name, []).append(entry_point)
        return found

    def _warn(self, entry_point: EntryPoint) -> None:
        # distrib may list its own, as any package does.
        if entry_point.value != self._built_in[entry_point.name]:
            import logging

            # Not by `warnings`: whoever has made errors of those would be told of this package when using another.
            message = "%s brings %s=%r, which is built in and stays."
            logging.getLogger("distrib").warning(message, _package(entry_point), self._kind, entry_point.name)


def _package(entry_point: EntryPoint) -> str:
    return f"package {entry_point.dist.name!r}" if entry_point.dist is not None else "a package"


def _backend_class() -> type[Backend]:
    from .backend import Backend

    return Backend


def _engine_class() -> type[Engine]:
    from .engine import Engine

    return Engine


backends: Registry[Backend] = Registry(
    kind="framework",
    group="distrib.backends",
    built_in={
        "tensorflow": "distrib.backends.tensorflow:TensorFlowBackend",
        "pytorch": "distrib.backends.pytorch:PyTorchBackend",
        "jax": "distrib.backends.jax:JaxBackend",
    },
    base=_backend_class,
    unknown=UnknownBackendError,
)
engines: Registry[Engine] = Registry(
    kind="engine",
    group="distrib.engines",
    built_in={
        "local": "distrib.engines.local:LocalEngine",
        "kubernetes": "distrib.engines.kubernetes:KubernetesEngine",
        "flyte": "distrib.engines.flyte:FlyteEngine",
    },
    base=_engine_class,
    unknown=UnknownEngineError,
)


def get_backend(name: str) -> Backend:
    """
    The backend of a framework; always the same object.

    Raises:
        UnknownBackendError: There is none of that name, two packages claim it, or its code cannot be loaded.

    >>> get_backend("tensorflow").name
    'tensorflow'
    """
    return backends[name]


def backend_names() -> tuple[str, ...]:
    """
    The frameworks that are installed: the built-in ones, then those of other packages.
    """
    return tuple(backends)


def get_engine(name: str) -> Engine:
    """
    The engine of that name; always the same object.

    Raises:
        UnknownEngineError: There is none of that name, two packages claim it, or its code cannot be loaded.
    """
    return engines[name]


def engine_names() -> tuple[str, ...]:
    """
    The engines that are installed: the built-in ones, then those of other packages.
    """
    return tuple(engines)
