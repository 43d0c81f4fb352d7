"""
What an engine says of itself.
"""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import strategies as st

from ..._decorator import DistributedTask
from ..._job import KEYS
from ..._registry import engines
from ...engine import Call
from ...errors import InvalidJobError, UnknownEngineError
from .. import _calls
from .._law import assert_frozen, for_all, law
from ..strategies import option_keywords
from .subject import EngineSubject

#: Plain data that hardly any option means.
_ODD: tuple[Any, ...] = (None, -1, 1.5, "", "no such thing", [], [1], {"a": 1}, True)


class DeclarationLaws(EngineSubject):
    """
    The name and the options.
    """

    @law
    def test_found_by_its_name(self) -> None:
        """
        An installed package brings the engine under its name.
        """
        name = self._subject.name
        try:
            found = engines.installed(name)
        except UnknownEngineError as error:
            kind = type(self._subject)
            raise AssertionError(
                f"{error}\nWrite into pyproject.toml, and install the package:\n"
                f'[project.entry-points."distrib.engines"]\n{name} = "{kind.__module__}:{kind.__qualname__}"'
            ) from error
        assert type(found) is type(self._subject), f"the name {name!r} belongs to {type(found)}"

    @law
    def test_its_name_is_a_keyword_of_jobs(self) -> None:
        """
        The name can be written as a keyword, and is no field of all jobs.
        """
        name = self._subject.name
        assert isinstance(name, str), f"name={name!r}"
        assert name.isidentifier(), f"name={name!r}"
        assert name not in KEYS, f"name={name!r} is a field of all jobs"

    @law
    def test_options_are_frozen(self) -> None:
        """
        Options are an attrs class whose objects nobody can change.
        """
        kind: Any = self._subject.options
        assert attrs.has(kind), f"{kind} is none"

        @for_all(option_keywords(kind))
        def holds(given: dict[str, Any]) -> None:
            options = kind(**given)
            assert_frozen(options)
            assert options == kind(**given)

        holds()

    @law
    def test_unknown_options_are_refused(self) -> None:
        """
        An option that the engine does not have is refused by its name, with those it has.
        """
        wrong = {self._subject.name: {**self.options, "no_such_option": 1}}
        task = DistributedTask(_calls.name, self.job())
        for what, act in (
            (".on() with an unknown option", lambda: task.on(self._subject.name, no_such_option=1)),
            ("plan() of a job with an unknown option", lambda: self._subject.plan(self.job(engine_options=wrong), Call(_calls.name))),
        ):
            error = self._raised(InvalidJobError, what, act)
            for word in ("no_such_option", *(field.alias for field in attrs.fields(self._options_class))):
                assert word in str(error), f"{what}: the message leaves out {word!r}: {error}"

    @law
    def test_odd_options_are_refused(self) -> None:
        """
        An option's value is accepted, or refused by an InvalidJobError that names the option.
        """
        fields = [field.alias for field in attrs.fields(self._options_class) if field.init]
        if not fields:
            pytest.skip(f"{self._subject.name} has no options")
        task = DistributedTask(_calls.name, self.job())

        @for_all(st.sampled_from(fields), st.sampled_from(_ODD))
        def holds(option: str, value: Any) -> None:
            try:
                task.on(self._subject.name, **{option: value})
            except InvalidJobError as error:
                assert option in str(error), f"{option}={value!r}: the message does not name the option: {error}"

        holds()
