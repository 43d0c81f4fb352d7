"""
The strategies draw every field: a round trip that loses one is found out.
"""

from functools import cache
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

from distrib._cluster import ClusterSpec
from distrib._job import KEYS, Job
from distrib._model import ReplicaGroup, Resources, RunPolicy, SchedulingPolicy, Toleration, Volume
from distrib._quantity import quantity
from distrib._registry import engine_names, get_backend, get_engine
from distrib.backends.pytorch import Elastic, PyTorchOptions
from distrib.testing import strategies


def drawn(strategy, count=150):
    """
    That many examples, the same each time.
    """
    found = []

    @settings(
        max_examples=count, database=None, derandomize=True, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(strategy)
    def collect(value):
        found.append(value)

    collect()
    return found


@cache
def drawn_jobs(name):
    """
    Jobs of a backend; drawn once, because that takes seconds.
    """
    return drawn(strategies.jobs(name))


@cache
def drawn_options(kind):
    """
    Options of a class.
    """
    return [kind(**keywords) for keywords in drawn(strategies.option_keywords(kind))]


def constant_fields(values):
    """
    The fields that are the same in all of *values*.
    """
    names = [field.name for field in attrs.fields(type(values[0]))]
    return {name for name in names if len({repr(getattr(value, name)) for value in values}) == 1}


@pytest.mark.parametrize(
    ("kind", "strategy", "fixed"),
    [
        (Resources, strategies.resources(), set()),
        (Toleration, strategies.tolerations(), set()),
        (Volume, strategies.volumes(), set()),
        (ReplicaGroup, strategies.replica_groups("ps"), {"role"}),
        (SchedulingPolicy, strategies.scheduling_policies(world_size=3), set()),
        (RunPolicy, strategies.run_policies(world_size=3), set()),
    ],
)
def test_every_field_varies(kind, strategy, fixed):
    """
    Each field takes more than one value, but for those that are asked for.
    """
    values = drawn(strategy)
    assert {type(value) for value in values} == {kind}
    assert constant_fields(values) == fixed


@pytest.mark.parametrize(("name", "fixed"), [("gossip", {"framework"}), ("tensorflow", {"framework", "options"})])
def test_every_field_of_a_job_varies(name, fixed):
    """
    Jobs differ in everything but their framework.
    """
    assert constant_fields(drawn_jobs(name)) == fixed


def test_every_field_of_the_options_varies():
    """
    A backend's own options are drawn as well, derived from their types.
    """
    assert constant_fields([job.options for job in drawn_jobs("gossip")]) == set()


@pytest.mark.parametrize("kind", [PyTorchOptions, Elastic, *(get_engine(name).options for name in ("local", "kubernetes", "flyte"))])
def test_every_field_of_our_options_varies(kind):
    """
    So are those of the frameworks and engines that come with the package, but for what takes only flytekit's own objects.
    """
    values = drawn_options(kind)
    assert constant_fields(values) <= {field.name for field in attrs.fields(kind) if field.type is Any}


@pytest.mark.parametrize(
    ("kind", "field", "words"),
    [
        (PyTorchOptions, "nnodes", {"1:4", "2:2"}),
        (PyTorchOptions, "nproc_per_node", {"auto", "gpu", "cpu"}),
        (Elastic, "nproc_per_node", {"auto", "gpu", "cpu"}),
        (Elastic, "start_method", {"fork", "spawn"}),
        (get_engine("local").options, "start_method", {"auto", "fork", "spawn"}),
        (get_engine("local").options, "preload", {("json", "decimal")}),
        (get_engine("kubernetes").options, "workload", {"operator", "job", "jobset", "trainjob"}),
    ],
)
def test_words_are_drawn(kind, field, words):
    """
    Of a field that takes certain words, each of them is drawn.
    """
    patient = settings(max_examples=5_000, database=None, deadline=None, phases=[Phase.generate])
    for word in words:
        find(strategies.option_keywords(kind), lambda given, word=word: getattr(kind(**given), field) == word, settings=patient)


def test_every_role_and_engine_is_drawn():
    """
    Each role is there and is missing where it may be; each engine has options and has none.
    """
    jobs = drawn_jobs("tensorflow")
    roles = [{group.role for group in job.groups} for job in jobs]
    for role in ("chief", "worker", "ps", "evaluator"):
        assert {role in of_job for of_job in roles} == {True, False}
    assert {name in job.engine_options for job in jobs for name in ("local", "paper")} == {True, False}
    # Of both backends: which names a row of draws has depends on all code that is loaded, and one may miss a name.
    assert {job.engine for job in (*jobs, *drawn_jobs("gossip"))} == {None, *engine_names()}
    assert any(job.engine_options.get("local") for job in jobs)


def test_merged_resources_are_drawn_too():
    """
    Jobs have requests and limits of their own, beside those of their groups, and of devices too.
    """
    jobs = [(job, group) for job in drawn_jobs("gossip") for group in job.groups]
    assert any(job.requests and job.limits and group.requests and group.limits for job, group in jobs)
    assert any(job.requested_gpus(group.role) for job, group in jobs)


@pytest.mark.parametrize("name", ["tensorflow", "gossip", "bare"])
def test_clusters_are_legal(name):
    """
    The counts of a cluster are within the bounds of the roles, and vary.
    """
    clusters = drawn(strategies.cluster_specs(get_backend(name)))
    assert {type(cluster) for cluster in clusters} == {ClusterSpec}
    assert len({cluster.world_size for cluster in clusters}) > 3
    for cluster in clusters:
        assert Job(name, **{role: len(addresses) for role, addresses in cluster.items()})


def test_quantities_take_every_form():
    """
    Texts of all styles, whole numbers, floats and decimals are drawn.
    """
    amounts = drawn(strategies.quantities())
    assert {type(amount).__name__ for amount in amounts} == {"str", "int", "float", "Decimal"}
    texts = "".join(quantity(amount) for amount in amounts)
    assert all(suffix in texts for suffix in ("i", "m", "n", "e", "k"))


@given(st.data(), st.integers(0, 3))
def test_the_bounds_of_a_group_are_kept(data, at_least):
    """
    The role and the range of counts can be chosen.
    """
    group = data.draw(strategies.replica_groups("ps", at_least=at_least, at_most=3))
    assert group.role == "ps"
    assert at_least <= group.replicas <= 3


def test_all_fields_of_a_job_are_known():
    """
    What a job is made of is what its data has.
    """
    assert [field.name for field in attrs.fields(Job)] == KEYS
