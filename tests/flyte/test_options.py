"""
What ``flyte={...}`` takes.
"""

import datetime as dt
import inspect

import attrs
import flytekit
import pytest
from flytekit import PodTemplate, Resources, Secret
from flytekit.core.cache import Cache
from flytekit.core.python_function_task import PythonFunctionTask
from flytekit.deck import DeckField
from flytekit.extras.accelerators import A100, T4
from flytekit.image_spec import ImageSpec
from flytekit.models.documentation import Documentation

from distrib import InvalidJobError, Job, distributed
from distrib._converter import job_to_data
from distrib.engines.flyte import FlyteOptions

#: Each option, and values that it takes.
TAKEN = {
    "cache": [True, Cache(version="1")],
    "cache_serialize": [True],
    "cache_version": ["1"],
    "cache_ignore_input_vars": [("x",)],
    "retries": [3],
    "interruptible": [True, False],
    "deprecated": ["use another"],
    "timeout": [60, dt.timedelta(hours=1)],
    "container_image": ["repo/train:1", ImageSpec(name="train", registry="repo")],
    "environment": [{"A": "1"}],
    "requests": [Resources(cpu="1", mem="1Gi")],
    "limits": [Resources(gpu="1")],
    "secret_requests": [[Secret(group="g", key="k")]],
    "execution_mode": [PythonFunctionTask.ExecutionBehavior.DYNAMIC],
    "node_dependency_hints": [[object]],
    "task_resolver": [flytekit.core.python_auto_container.default_task_resolver],
    "docs": [Documentation(short_description="it trains")],
    "disable_deck": [False],
    "enable_deck": [True],
    "deck_fields": [(DeckField.INPUT,)],
    "pod_template": [PodTemplate(primary_container_name="main", labels={"a": "b"})],
    "pod_template_name": ["template"],
    "accelerator": [T4, A100.partition_1g_5gb],
    "pickle_untyped": [True],
    "shared_memory": [True, "2Gi"],
    "resources": [Resources(cpu=("1", "2"))],
    "labels": [{"kueue.x-k8s.io/queue-name": "q"}],
    "annotations": [{"example.com/note": "anything at all"}],
}
#: A value that no option takes, for each.
REFUSED = {
    "cache": "yes",
    "cache_serialize": 1,
    "cache_version": "",
    "cache_ignore_input_vars": "x",
    "retries": -1,
    "interruptible": "true",
    "deprecated": None,
    "timeout": dt.timedelta(seconds=-1),
    "container_image": 3,
    "environment": {"A": 1},
    "requests": {"cpu": 1},
    "limits": "1",
    "secret_requests": ["key"],
    "execution_mode": "dynamic",
    "node_dependency_hints": "task",
    "task_resolver": "resolver",
    "docs": "text",
    "disable_deck": 0,
    "enable_deck": "yes",
    "deck_fields": ["input"],
    "pod_template": {"labels": {}},
    "pod_template_name": 1,
    "accelerator": "nvidia-tesla-t4",
    "pickle_untyped": None,
    "shared_memory": False,
    "resources": [1],
    "labels": {"not a label!": "x"},
    "annotations": {"a": 1},
}


#: What the oldest flytekit that we take does not have yet.
LATER = {"labels", "annotations"}


def names():
    """
    The keywords of flytekit's ``@task``, besides the function and its config: those that it reads from ``**kwargs`` too.
    """
    of_task = set(inspect.signature(flytekit.task).parameters) - {"_task_function", "task_config", "kwargs"}
    return of_task | {"cache_serialize", "cache_version", "cache_ignore_input_vars"}


def test_every_keyword_of_task_is_an_option():
    """
    None of the keywords of flytekit's ``@task`` is missing, none is there that it does not have, and all are tried here.
    """
    assert {field.name for field in attrs.fields(FlyteOptions)} == names() | LATER == set(TAKEN) == set(REFUSED)


@pytest.mark.parametrize("name", sorted(TAKEN))
def test_what_is_given_reaches_flytekit(name):
    """
    An option is handed on to flytekit as it was given, and nothing else is: what is not given is left to flytekit.
    """
    for value in TAKEN[name]:
        keywords = FlyteOptions(**{name: value}).keywords()
        assert keywords == {name: value}
        if isinstance(value, dict):
            assert type(keywords[name]) is dict


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_it_does_not_take_is_refused_by_name(name):
    """
    A value of another type is refused when the job is made, with the option's name and what to write.
    """
    with pytest.raises(InvalidJobError, match=rf"^flyte\.{name}\b.*(write|leave)") as caught:
        distributed(framework="tensorflow", worker=1, flyte={name: REFUSED[name]})
    assert caught.value.field.startswith(f"flyte.{name}")


def test_unknown_options_are_refused_with_the_nearest():
    """
    An option that flytekit has no keyword for is refused with the nearest one.
    """
    with pytest.raises(InvalidJobError, match=r"flyte\.retrys=2: no such option\. Did you mean 'retries'\? Legal: cache, "):
        distributed(framework="tensorflow", worker=1, flyte={"retrys": 2})


def test_options_are_the_jobs():
    """
    ``flyte=`` and ``.on("flyte", ...)`` say the same, and later ones are added to those before.
    """

    def train(x: int) -> int:
        return x

    one = distributed(framework="tensorflow", worker=1, flyte={"retries": 2, "pod_template": TAKEN["pod_template"][0]})(train)
    other = distributed(framework="tensorflow", worker=1, flyte={"retries": 2})(train).on("flyte", pod_template=TAKEN["pod_template"][0])
    assert one.job.engine_options == other.job.engine_options
    assert one.job.engine_options["flyte"]["pod_template"] is TAKEN["pod_template"][0]


def test_other_engines_take_plain_data_only():
    """
    Objects are options of the flyte engine alone.
    """
    with pytest.raises(InvalidJobError, match=r"local\['echo'\]=.*no plain data"):
        Job("tensorflow", worker=1, local={"echo": Resources()})


def test_objects_cannot_be_written_down():
    """
    A job with plain options can be written down as data; one with objects of flytekit's is refused, and the object named.
    """
    assert job_to_data(Job("tensorflow", worker=1, flyte={"retries": 2}))["engine_options"] == {"flyte": {"retries": 2}}
    with pytest.raises(InvalidJobError, match=r"engine_options\['flyte'\]\['pod_template'\].*no plain data"):
        job_to_data(Job("tensorflow", worker=1, flyte={"pod_template": TAKEN["pod_template"][0]}))
