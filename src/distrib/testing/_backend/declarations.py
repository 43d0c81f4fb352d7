"""
What a backend says of itself.
"""

from __future__ import annotations

import pickle
import re
from collections import Counter
from collections.abc import Mapping

from ..._job import KEYS
from ..._registry import backends, engine_names
from ...backend import Role
from ...errors import UnknownBackendError
from .._elsewhere import elsewhere
from .._law import law
from .subject import BackendSubject, environments_of

#: What is written after ``framework=``, and what is a keyword and part of the names of pods.
_NAME = re.compile(r"[a-z][-a-z0-9_.]{0,62}")
_ROLE = re.compile(r"[a-z][a-z0-9]{0,31}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


class DeclarationLaws(BackendSubject):
    """
    Names, roles and tables.
    """

    @law
    def test_found_by_its_name(self) -> None:
        """
        An installed package brings the backend under its name.
        """
        name = self._subject.name
        try:
            found = backends.installed(name)
        except UnknownBackendError as error:
            kind = type(self._subject)
            raise AssertionError(
                f"{error}\nWrite into pyproject.toml, and install the package:\n"
                f'[project.entry-points."distrib.backends"]\n{name} = "{kind.__module__}:{kind.__qualname__}"'
            ) from error
        assert type(found) is type(self._subject), f"the name {name!r} belongs to {type(found)}"

    @law
    def test_its_name_can_be_written(self) -> None:
        """
        The name is a short word of lower-case letters, digits, ``-``, ``_`` and ``.``.
        """
        name = self._subject.name
        assert isinstance(name, str), f"name={name!r}"
        assert _NAME.fullmatch(name), f"name={name!r}"

    @law
    def test_roles_are_different_words(self) -> None:
        """
        Roles are a tuple of Role, each with a name of its own: lower-case letters and digits, a letter first.
        """
        roles = self._subject.roles
        assert isinstance(roles, tuple), f"roles is a {type(roles).__name__}"
        assert roles, "there are none"
        for role in roles:
            assert isinstance(role, Role), f"{role!r} is none"
            assert isinstance(role.name, str), f"{role!r} has no name"
            assert _ROLE.fullmatch(role.name), f"{role.name!r} is no such word"
        twice = [name for name, count in Counter(role.name for role in roles).items() if count > 1]
        assert not twice, f"given more than once: {', '.join(twice)}"

    @law
    def test_bounds_are_sane(self) -> None:
        """
        Of each role at least 0 replicas are needed, and at most 1 or more are taken, not fewer than are needed.
        """
        for role in self._subject.roles:
            assert type(role.at_least) is int, f"{role}: at_least={role.at_least!r} is no whole number"
            assert role.at_least >= 0, f"{role}: at_least={role.at_least}"
            if role.at_most is not None:
                assert type(role.at_most) is int, f"{role}: at_most={role.at_most!r} is no whole number"
                assert role.at_most >= max(1, role.at_least), f"{role}: at_most={role.at_most}"
            assert isinstance(role.service, bool), f"{role}: service={role.service!r}"

    @law
    def test_some_role_ends_by_itself(self) -> None:
        """
        Not all roles are services: a run is over when its coordinator has returned.
        """
        assert not all(role.service for role in self._subject.roles), "all of them are"

    @law
    def test_each_keyword_means_one_thing(self) -> None:
        """
        No role or option has the name of a field of all jobs, of an engine, or of another role or option.
        """
        counted = Counter([*self._role_names, *self._option_names, *KEYS, *engine_names()])
        clashing = [name for name in (*self._role_names, *self._option_names) if counted[name] > 1]
        assert not clashing, f"{', '.join(clashing)}: the name of something else too"

    @law
    def test_tables_hold_words(self) -> None:
        """
        ``preload`` names modules, ``reserved`` and ``thread_variables`` variables, each in a tuple; ``requires`` maps modules to text.
        """
        backend = self._subject
        for field, words in (("preload", _MODULE), ("reserved", _VARIABLE), ("thread_variables", _VARIABLE)):
            table = getattr(backend, field)
            assert isinstance(table, tuple), f"{field}={table!r} is no tuple"
            for word in table:
                assert isinstance(word, str), f"{field} holds {word!r}"
                assert words.fullmatch(word), f"{field} holds {word!r}"
        assert isinstance(backend.requires, Mapping), f"requires={backend.requires!r}"
        for module, requirement in backend.requires.items():
            assert _MODULE.fullmatch(module), f"requires[{module!r}]"
            assert isinstance(requirement, str), f"requires[{module!r}]={requirement!r}"

    @law
    def test_it_can_be_pickled(self) -> None:
        """
        A backend that was pickled gives the same environments as before.
        """
        copy = pickle.loads(pickle.dumps(self._subject))  # noqa: S301  # what was just written
        assert type(copy) is type(self._subject)
        for cluster in self._examples():
            assert environments_of(copy, cluster) == environments_of(self._subject, cluster)

    @law
    def test_importing_it_imports_no_framework(self) -> None:
        """
        The module of a backend imports none of the modules that replicas need.
        """
        heavy = {module.partition(".")[0] for module in (*self._subject.preload, *self._subject.requires)}
        brought = heavy & set(elsewhere(self._subject, [])["modules"])
        assert not brought, f"it imports {', '.join(sorted(brought))}; import it in the function that needs it"
