"""
What a decorated function runs on.
"""

import pytest

import distrib
from distrib import UnknownEngineError, distributed
from distrib.engines.local._plan import LocalPlan


def engine_of(task):
    """
    The name of the engine that plans it: the one of the package that is installed here plans nothing.
    """
    try:
        return "local" if isinstance(task.plan(), LocalPlan) else "another"
    except NotImplementedError:
        return "paper"


def train():
    """
    Trains nothing.
    """


@pytest.mark.parametrize(
    ("on", "engine", "variable", "used"),
    [
        (None, None, None, "local"),
        (None, None, "", "local"),
        (None, None, "paper", "paper"),
        (None, "local", "paper", "local"),
        (None, "paper", None, "paper"),
        ("local", "paper", "paper", "local"),
        ("paper", "local", "local", "paper"),
    ],
)
def test_the_engine_is_chosen_by_the_call_the_decorator_and_the_variable(on, engine, variable, used, monkeypatch):
    """
    The nearest to the call is the one used: ``.on()``, ``engine=``, ``DISTRIB_ENGINE``, and else this machine.
    """
    if variable is not None:
        monkeypatch.setenv("DISTRIB_ENGINE", variable)
    task = distributed("tensorflow", worker=2, engine=engine)(train)
    assert engine_of(task if on is None else task.on(on)) == used


def test_a_variable_that_names_no_engine_is_told_by_its_name(monkeypatch):
    """
    Nobody looks for a word that stands in no program in the program.
    """
    monkeypatch.setenv("DISTRIB_ENGINE", "locl")
    with pytest.raises(UnknownEngineError, match=r"^DISTRIB_ENGINE='locl': no such engine. Did you mean 'local'\?"):
        distributed("tensorflow", worker=2)(train)()


def test_a_name_that_distrib_has_not():
    """
    Python has what it takes to suggest the nearest one.
    """
    with pytest.raises(AttributeError) as caught:
        distrib.distribute  # noqa: B018
    assert (caught.value.name, caught.value.obj) == ("distribute", distrib)
