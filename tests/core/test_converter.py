"""
Jobs become plain data and come back.
"""

import json
import pickle
from functools import partial
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd import ODD, anything, made_or_refused

from distrib._converter import job_from_data, job_to_data
from distrib._job import DEFAULTS, Job
from distrib._registry import get_backend
from distrib.errors import InvalidJobError, UnknownBackendError, UnknownEngineError
from distrib.testing import strategies

any_job = st.sampled_from(["tensorflow", "gossip", "bare"]).flatmap(strategies.jobs)


def containers(value):
    """
    Every list and dict within *value*, itself included.
    """
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [value, *(found for item in inner for found in containers(item))] if isinstance(value, (dict, list)) else []


class TestRoundTrip:
    @given(any_job)
    def test_job_to_data_to_job_is_the_identity(self, job):
        """
        Nothing is lost or changed on the way, also by way of JSON.
        """
        data = job_to_data(job)
        assert job_from_data(data) == job
        text = json.dumps(data, allow_nan=False)
        assert json.loads(text) == data
        assert job_from_data(json.loads(text)) == job

    @given(any_job)
    def test_data_aliases_nothing(self, job):
        """
        Whatever is done to the data, the job and other data made of it stay as they are.
        """
        data, other = job_to_data(job), job_to_data(job)
        before = pickle.dumps(job)
        for container in containers(data):
            container.clear()
        assert job_to_data(job) == other
        assert pickle.dumps(job) == before

    @given(any_job)
    def test_equal_jobs_have_equal_data(self, job):
        """
        The data says what the job is, not how it was written.
        """
        assert job_to_data(job.evolve()) == job_to_data(job)

    def test_defaults_are_left_out(self):
        """
        The data of a small job is small.
        """
        assert job_to_data(Job("tensorflow", worker=2)) == {"framework": "tensorflow", "groups": [{"role": "worker", "replicas": 2}]}

    def test_words_are_in_their_wire_form(self):
        """
        Enumerations are written as Kubernetes spells them, amounts in canonical form.
        """
        job = Job(
            "tensorflow", worker={"restart_policy": "on_failure", "limits": {"memory": "1024Mi"}}, run_policy={"clean_pod_policy": "all"}
        )
        assert job_to_data(job) == {
            "framework": "tensorflow",
            "groups": [{"role": "worker", "restart_policy": "OnFailure", "limits": {"memory": "1Gi"}}],
            "run_policy": {"clean_pod_policy": "All"},
        }

    def test_options_of_the_backend_travel(self):
        """
        Enumerations, tuples and classes in a backend's options come back as what they were.
        """
        module = pytest.importorskip("distrib_gossip")
        options = module.GossipOptions(mode=module.Mode.PULL, tags=("a",), peering=module.Peering(secret="s", hops=(1, 2)))
        data = job_to_data(Job("gossip", seed=1, options=options))
        assert data["options"] == {"mode": "pull", "tags": ["a"], "peering": {"secret": "s", "hops": [1, 2]}}
        assert job_from_data(data).options == options

    def test_options_that_are_no_data_are_refused(self):
        """
        What JSON cannot hold is told by its path.
        """
        options = get_backend("gossip").options(tags=({1, 2},))
        with pytest.raises(InvalidJobError, match=r"options\['tags'\]\[0\]={1, 2}: a set is no plain data") as caught:
            job_to_data(Job("gossip", seed=1, options=options))
        assert caught.value.field == "options['tags'][0]"


class TestData:
    def test_roles_and_options_may_be_keys(self):
        """
        Data may be written by hand as the keywords of a job are.
        """
        data = {"framework": "gossip", "seed": 1, "peer": {"replicas": 2}, "fan_out": 5, "local": {"echo": False}, "name": None}
        assert job_from_data(data) == Job("gossip", seed=1, peer=2, fan_out=5, local={"echo": False})
        assert job_from_data(MappingProxyType(data)) == job_from_data(data)

    @pytest.mark.parametrize(
        ("data", "field", "said"),
        [
            (None, "job", "write a mapping"),
            ([], "job", "write a mapping"),
            ({}, "framework", "name the framework"),
            ({"framework": None}, "framework", "e.g. 'tensorflow'"),
            ({"framework": "gossip", 3: 4}, "[3]", "as text"),
            ({"framework": "gossip", "seed": 1, "run_polcy": {}}, "run_polcy", "Did you mean 'run_policy'?"),
            ({"framework": "gossip", "groups": [{"role": "seed", "replica": 1}]}, "groups[0].replica", "Did you mean 'replicas'?"),
            ({"framework": "gossip", "groups": [{"role": "seed", "limits": {"cpus": 1}}]}, "groups[0].limits.cpus", "Did you mean 'cpu'?"),
            (
                {"framework": "gossip", "groups": [{"role": "seed", "volumes": [{"mount_path": "/a", "claims": "b"}]}]},
                "groups[0].volumes[0].claims",
                "Did you mean 'claim'?",
            ),
            (
                {"framework": "gossip", "seed": 1, "run_policy": {"scheduling_policy": {"queu": "a"}}},
                "run_policy.scheduling_policy.queu",
                "Did you mean 'queue'?",
            ),
            ({"framework": "gossip", "seed": 1, "options": {"fanout": 3}}, "options.fanout", "Did you mean 'fan_out'?"),
            ({"framework": "gossip", "seed": 1, "options": {"peering": {"hop": []}}}, "options.peering.hop", "Did you mean 'hops'?"),
            ({"framework": "gossip", "seed": 1, "options": {"peering": {"hops": [1, "x"]}}}, "options.peering.hops[1]", "ValueError"),
            ({"framework": "gossip", "seed": 1, "options": {"peering": {"counted": 1}}}, "options.peering.counted", "Legal: secret, hops."),
            ({"framework": "gossip", "seed": 1, "options": {"mode": "shove"}}, "options.mode", "shove"),
            ({"framework": "gossip", "seed": 1, "options": {"fan_out": 0}}, "options", "fan_out must be positive"),
            ({"framework": "gossip", "seed": 1, "options": {"tags": {1, 2}}}, "options['tags']", "no plain data"),
            ({"framework": "gossip", "seed": 1, "options": 3}, "options", "write a mapping"),
            ({"framework": "tensorflow", "worker": 1, "options": {"a": 1}}, "options", "has no options"),
        ],
    )
    def test_what_is_wrong_is_told_by_its_path(self, data, field, said):
        """
        Unknown keys are refused at every level, with the path and the nearest legal key.
        """
        with pytest.raises(InvalidJobError) as caught:
            job_from_data(data)
        assert caught.value.field == field
        assert str(caught.value).startswith(f"{field}=")
        assert said in str(caught.value)

    def test_an_unknown_framework_is_told(self):
        """
        As by a job itself.
        """
        with pytest.raises(UnknownBackendError, match="Did you mean 'gossip'"):
            job_from_data({"framework": "gosip", "options": {"a": 1}})

    @given(
        st.dictionaries(
            st.sampled_from(["framework", "groups", "seed", "peer", "fan_out", *DEFAULTS]) | st.text(max_size=3),
            st.sampled_from(["gossip", 1]) | anything,
        )
    )
    def test_any_data_is_a_job_or_refused(self, data):
        """
        Nothing else is ever raised.
        """
        found = made_or_refused(partial(job_from_data, data))
        if isinstance(found, Job):
            assert job_from_data(job_to_data(found)) == found
        else:
            assert isinstance(found, (InvalidJobError, UnknownBackendError, UnknownEngineError))

    def test_each_odd_value(self):
        """
        The same for every known oddity as the data, as the framework, and as the options.
        """
        for value in ODD:
            for data in (value, {"framework": value}, {"framework": "gossip", "seed": 1, "options": value}):
                found = made_or_refused(partial(job_from_data, data))
                assert isinstance(found, (Job, InvalidJobError, UnknownBackendError))
