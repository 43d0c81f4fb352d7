"""
A job that exists is legal, and one that is not is told what is wrong with it.
"""

import copy
import itertools
import pickle
from functools import partial

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd import ODD, anything, made_or_refused, odd

from distrib._job import DEFAULTS, KEYS, Job
from distrib._model import ReplicaGroup, Resources, RestartPolicy, RunPolicy
from distrib._quantity import nano
from distrib._registry import get_backend
from distrib.errors import DistribError, InvalidJobError, UnknownBackendError, UnknownEngineError
from distrib.testing import strategies

BACKENDS = ("tensorflow", "gossip", "bare")

any_job = st.sampled_from(BACKENDS).flatmap(strategies.jobs)


def refusal(*args, **keywords):
    """
    The error that ``Job(...)`` raises.
    """
    with pytest.raises(InvalidJobError) as caught:
        Job(*args, **keywords)
    return caught.value


class TestGroups:
    @pytest.mark.parametrize(
        "worker",
        [2, {"replicas": 2}, ReplicaGroup(replicas=2), ReplicaGroup(role="worker", replicas=2), {"role": "worker", "replicas": 2}],
        ids=["int", "mapping", "group", "group-role", "mapping-role"],
    )
    def test_a_role_takes_a_number_a_mapping_or_a_group(self, worker):
        """
        All ways to write a group are the same job, and so is a list of groups.
        """
        assert Job("tensorflow", worker=worker) == Job("tensorflow", groups=[{"role": "worker", "replicas": 2}])

    def test_groups_are_in_the_order_of_the_roles(self):
        """
        Whatever the order of the keywords, groups have that of the backend's roles: it is that of the ranks.
        """
        job = Job("tensorflow", evaluator=1, ps=1, worker=2, chief=1)
        assert [group.role for group in job.groups] == ["chief", "worker", "ps", "evaluator"]
        assert job.world_size == 5
        assert job == Job("tensorflow", chief=1, worker=2, ps=1, evaluator=1)

    def test_zero_replicas_are_no_group(self):
        """
        A count of 0 is the same as leaving the role out.
        """
        assert Job("tensorflow", chief=0, worker=2, ps={"replicas": 0, "env": {"A": "1"}}) == Job("tensorflow", worker=2)

    def test_a_role_without_replicas_has_no_group(self):
        """
        Asking for it names the roles that there are.
        """
        with pytest.raises(InvalidJobError, match=r"no chief\. Legal: worker\."):
            Job("tensorflow", worker=2).group("chief")

    @pytest.mark.parametrize(
        ("keywords", "field", "said"),
        [
            ({}, "worker", "write e.g. worker=2"),
            ({"worker": 0}, "worker", "write e.g. worker=2"),
            ({"worker": -1}, "worker", "from 0"),
            ({"worker": True}, "worker", "a number of replicas, a ReplicaGroup, or a mapping"),
            ({"worker": "2"}, "worker", "a number of replicas"),
            ({"worker": 2.0}, "worker", "a number of replicas"),
            ({"worker": None}, "worker", "a number of replicas"),
            ({"worker": 2**40}, "worker", "2147483647"),
            ({"chief": 2}, "chief", "at most 1"),
            ({"worker": {"replica": 2}}, "worker.replica", "Did you mean 'replicas'"),
            ({"worker": {"replicas": -2}}, "worker.replicas", "from 0"),
            ({"worker": {"role": "ps"}}, "worker.role", "given as worker="),
            ({"worker": ReplicaGroup(role="ps")}, "worker.role", "given as worker="),
            ({"worker": {"requests": {"cpu": "x"}}}, "worker.requests.cpu", "'500m'"),
            ({"groups": [{"role": "wroker"}]}, "groups[0].role", "Did you mean 'worker'"),
            ({"groups": [{"replicas": 2}]}, "groups[0].role", "Legal: chief, worker"),
            ({"groups": [{"role": "worker"}] * 2}, "groups[1].role", "given twice"),
            ({"groups": [{"role": "worker"}], "worker": 2}, "worker", "in groups= too"),
            ({"groups": "worker"}, "groups", "write a list"),
            ({"groups": {"worker": 2}}, "groups", "write a list"),
            ({"groups": [2]}, "groups[0]", "ReplicaGroup"),
            ({"groups": None}, "groups", "write a list"),
        ],
    )
    def test_wrong_groups_are_refused(self, keywords, field, said):
        """
        The error names the role and the field as they were written.
        """
        error = refusal("tensorflow", **keywords)
        assert error.field == field
        assert str(error).startswith(field)
        assert said in str(error)

    @pytest.mark.parametrize(("seed", "said"), [(0, "at least 1"), (3, "at most 2")])
    def test_the_bounds_of_a_role_hold(self, seed, said):
        """
        A role's counts are bounded by its backend.
        """
        error = refusal("gossip", seed=seed, peer=1)
        assert error.field == "seed"
        assert said in str(error)

    def test_the_backend_has_the_last_word(self):
        """
        What only the framework knows is checked too.
        """
        assert refusal("tensorflow", ps=2).field == "ps"
        assert refusal("gossip", seed=1, quiet=True, name="loud").field == "quiet"


class TestKeywords:
    def test_unknown_keywords_name_the_legal_ones(self):
        """
        Roles, options, the job's own fields and engines are listed; the nearest is named.
        """
        error = refusal("gossip", seed=1, fanout=3)
        assert error.field == "fanout"
        for word in ("Did you mean 'fan_out'?", "seed", "mode", "run_policy", "local", "paper"):
            assert word in str(error)

    @pytest.mark.parametrize(
        ("keywords", "said"),
        [
            ({"backoff_limit": 3}, "write run_policy={'backoff_limit': 3}."),
            ({"cpu": 2}, "write requests={'cpu': 2} or limits={'cpu': 2}."),
            ({"preload": False}, "write local={'preload': False}."),
            ({"volumes": []}, "write worker={'replicas': 2, 'volumes': []}."),
            ({"replicas": 3}, "write worker={'replicas': 3}."),
        ],
    )
    def test_keywords_that_belong_into_others_name_those(self, keywords, said):
        """
        A field of a group or of the policies, a resource, or an option of an engine, is told with what to write instead.
        """
        assert str(refusal("tensorflow", worker=2, **keywords)).endswith(f": tensorflow jobs have no such field; {said}")

    def test_options_are_the_backends(self):
        """
        They may be given by keyword, as a mapping, as an object, or mixed; what is left out is at its default.
        """
        options = get_backend("gossip").options
        job = Job("gossip", seed=1, fan_out=5, quiet=True)
        assert job.options == options(fan_out=5, quiet=True)
        assert job == Job("gossip", seed=1, options={"fan_out": 5, "quiet": True})
        assert job == Job("gossip", seed=1, options=options(fan_out=5), quiet=True)
        assert Job("gossip", seed=1).options == options()
        assert Job("tensorflow", worker=1).options is None

    @pytest.mark.parametrize(
        ("framework", "keywords", "field", "said"),
        [
            ("tensorflow", {"worker": 1, "options": {}}, "options", "has no options"),
            ("gossip", {"seed": 1, "options": 3}, "options", "write a mapping"),
            ("gossip", {"seed": 1, "options": {"fanout": 3}}, "options.fanout", "Did you mean 'fan_out'"),
            ("gossip", {"seed": 1, "options": {"fan_out": 3}, "fan_out": 4}, "fan_out", "write it once"),
            ("gossip", {"seed": 1, "fan_out": 0}, "options", "fan_out must be positive"),
            ("gossip", {"seed": 1, "fan_out": "x"}, "options", "TypeError"),
            ("gossip", {"seed": 1, "tags": []}, None, None),
        ],
    )
    def test_wrong_options_are_refused(self, framework, keywords, field, said):
        """
        Whatever the options class raises is told as an error in the job.
        """
        if field is None:
            assert Job(framework, **keywords)
        else:
            error = refusal(framework, **keywords)
            assert error.field == field
            assert said in str(error)

    def test_an_engines_name_takes_its_options(self):
        """
        They are kept as plain data; several engines may have some.
        """
        given = {"grace_period": 5, "preload": ["numpy"]}
        job = Job("tensorflow", worker=1, local=given, paper={})
        given["preload"].append("x")
        assert job.engine_options == {"local": {"grace_period": 5, "preload": ("numpy",)}, "paper": {}}
        assert job == Job("tensorflow", worker=1, engine_options={"local": {"grace_period": 5, "preload": ["numpy"]}, "paper": {}})

    @pytest.mark.parametrize(
        ("keywords", "field", "said"),
        [
            ({"local": 3}, "local", "write a mapping"),
            ({"local": None}, "local", "write a mapping"),
            ({"local": {"a": object()}}, "local['a']", "no plain data"),
            ({"local": {1: 2}}, "local[1]", "as text"),
            ({"local": {}, "engine_options": {"local": {}}}, "local", "write it once"),
            ({"engine_options": {"locale": {}}}, "engine_options['locale']", "Did you mean 'local'"),
            ({"engine_options": {3: {}}}, "engine_options[3]", "Legal: local"),
            ({"engine_options": []}, "engine_options", "write a mapping"),
            ({"engine": 3}, "engine", "e.g. 'local'"),
            ({"name": "My-Job"}, "name", "a letter first"),
            ({"name": "1st"}, "name", "a letter first"),
            ({"name": "x" * 64}, "name", "at most 63"),
            ({"name": "a-"}, "name", "no '-' last"),
            ({"name": ""}, "name", "a letter first"),
            ({"env": {"DISTRIB_REPLICA": "x"}}, "env['DISTRIB_REPLICA']", "set for each replica"),
            ({"worker": {"env": {"DISTRIB_RUN_ID": "x"}}}, "worker.env['DISTRIB_RUN_ID']", "set for each replica"),
            ({"env": {"TF_CONFIG": "{}"}}, "env['TF_CONFIG']", "tensorflow sets this variable"),
            ({"worker": {"env": {"TF_CONFIG": ""}}}, "worker.env['TF_CONFIG']", "leave it out"),
            ({"run_policy": {"backof_limit": 3}}, "run_policy.backof_limit", "Did you mean 'backoff_limit'"),
            ({"run_policy": None}, "run_policy", "RunPolicy"),
            ({"run_policy": {"scheduling_policy": {"min_available": 2}}}, "run_policy.scheduling_policy.min_available", "only 1 replicas"),
            ({"requests": {"cpu": 4}, "limits": {"cpu": 2}}, "worker.requests.cpu", "limits.cpu='2'"),
            ({"worker": {"requests": {"cpu": 4}}, "limits": {"cpu": 2}}, "worker.requests.cpu", "limits.cpu='2'"),
        ],
    )
    def test_wrong_fields_are_refused(self, keywords, field, said):
        """
        The error names the field by its path from the job.
        """
        error = refusal("tensorflow", **{"worker": 1, **keywords})
        assert error.field == field
        assert said in str(error)

    def test_unknown_names_are_lookup_errors(self):
        """
        A framework or an engine that is not installed is told apart from a job that is wrong.
        """
        with pytest.raises(UnknownBackendError, match="Did you mean 'tensorflow'"):
            Job("tensorflw", worker=1)
        with pytest.raises(UnknownEngineError, match="Did you mean 'local'"):
            Job("tensorflow", worker=1, engine="locall")
        assert refusal(3, worker=1).field == "framework"


class TestQuestions:
    def test_groups_fall_back_to_the_job(self):
        """
        What a group leaves open is the job's: resources amount by amount, variables by name, the image as a whole.
        """
        job = Job(
            "tensorflow",
            chief={"requests": {"cpu": 1}, "env": {"A": "chief"}, "image": "chief:1", "restart_policy": "Always"},
            worker={"limits": {"gpu": 2}},
            image="train:1",
            env={"A": "all", "B": "all"},
            requests={"cpu": 4, "memory": "1Gi"},
            limits={"memory": "2Gi", "cpu": 4},
        )
        assert job.resources_requests("chief") == Resources(cpu=1, memory="1Gi")
        assert job.resources_requests("worker") == Resources(cpu=4, memory="1Gi")
        assert job.resources_limits("worker") == Resources(cpu=4, memory="2Gi", gpu=2)
        assert job.env_of("chief") == {"A": "chief", "B": "all"}
        assert job.image_of("chief") == "chief:1"
        assert job.image_of("worker") == "train:1"
        assert job.restart_policy("chief") is RestartPolicy.ALWAYS
        assert job.restart_policy("worker") is RestartPolicy.NEVER
        assert (job.requested_cpu("chief"), job.requested_cpu("worker")) == (1, 4)
        assert (job.requested_gpus("chief"), job.requested_gpus("worker")) == (0, 2)

    def test_nothing_asked_is_nothing(self):
        """
        A job that says nothing about resources has none.
        """
        job = Job("tensorflow", worker=1)
        assert job.resources_requests("worker") is None
        assert job.resources_limits("worker") is None
        assert job.requested_cpu("worker") is None
        assert job.requested_gpus("worker") == 0

    def test_requested_cpu_falls_back_to_the_limit(self):
        """
        As in Kubernetes, a limit without a request is a request too; fractions of cores are kept.
        """
        assert Job("tensorflow", worker=1, limits={"cpu": "1500m"}).requested_cpu("worker") == 1.5

    @given(any_job)
    def test_questions_agree_with_the_fields(self, job):
        """
        The totals and the merged resources are those of the groups.
        """
        assert job.world_size == sum(group.replicas for group in job.groups) > 0
        assert job.backend is get_backend(job.framework)
        for group in job.groups:
            assert job.group(group.role) is group
            requests, limits = job.resources_requests(group.role), job.resources_limits(group.role)
            merged = {field: amount for source in (limits, requests) if source for field, amount, _ in source.amounts()}
            assert job.requested_gpus(group.role) == int(merged.get("gpu", 0))
            cpu = job.requested_cpu(group.role)
            assert (cpu is None) == ("cpu" not in merged)
            assert cpu is None or cpu == nano(merged["cpu"]) / 10**9


class TestCopies:
    @given(any_job)
    def test_copies_are_equal(self, job):
        """
        A job is equal to its copy, its pickled self, and one made of its own fields, and hashes like them.
        """
        fields = {key: getattr(job, key) for key in KEYS}
        for other in (copy.deepcopy(job), pickle.loads(pickle.dumps(job)), Job(**fields), job.evolve(), attrs.evolve(job)):
            assert other == job
            assert hash(other) == hash(job)

    @given(any_job)
    def test_what_is_shown_can_be_written(self, job):
        """
        The repr is a call that makes an equal job, unless an option is an object of the backend's own.
        """
        names = {kind.__name__: kind for kind in (Job, ReplicaGroup, Resources, RunPolicy)}
        from distrib import _model

        shown = repr(job)
        if job.framework == "gossip":
            assert shown.startswith("Job('gossip', seed=")
        else:
            assert eval(shown, {**vars(_model), **names}) == job

    def test_what_is_shown_is_what_is_set(self):
        """
        Defaults are left out.
        """
        job = Job("gossip", seed=1, peer={"replicas": 2, "restart_policy": "Never"}, fan_out=5, name="a", local={"echo": True})
        assert repr(job) == (
            "Job('gossip', seed=1, peer={'replicas': 2, 'restart_policy': 'Never'}, fan_out=5, rounds=10, name='a', local={'echo': True})"
        )

    def test_it_is_frozen(self):
        """
        A job does not change; a copy with other values is made by evolve.
        """
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            Job("tensorflow", worker=1).name = "a"

    def test_evolve_takes_the_keywords_of_a_job(self):
        """
        A number changes a group's count only; a mapping replaces the group; options and engines are changed by keyword.
        """
        job = Job("gossip", seed=1, peer={"replicas": 2, "env": {"A": "1"}}, fan_out=5, local={"echo": True}, paper={"sheets": 1})
        assert job.evolve(peer=4).group("peer") == ReplicaGroup(role="peer", replicas=4, env={"A": "1"})
        assert job.evolve(peer={"replicas": 4}).group("peer") == ReplicaGroup(role="peer", replicas=4)
        assert [group.role for group in job.evolve(peer=0, watcher=1).groups] == ["seed", "watcher"]
        assert job.evolve(quiet=True).options == get_backend("gossip").options(fan_out=5, quiet=True)
        assert job.evolve(local={}).engine_options == {"paper": {"sheets": 1}, "local": {}}
        assert job.evolve(engine_options={}).engine_options == {}
        assert job.evolve(groups=[{"role": "seed"}]).world_size == 1
        assert job.evolve(name="a").name == "a"
        assert job.evolve(framework="bare", groups=(), node=2) == Job("bare", node=2, engine_options=job.engine_options)

    def test_evolve_refuses_what_a_job_refuses(self):
        """
        There is no way round the checks.
        """
        with pytest.raises(InvalidJobError, match="at most 1"):
            Job("tensorflow", worker=1).evolve(chief=2)


names = st.sampled_from(["worker", "chief", "seed", "peer", "fan_out", "tags", "local", "paper", "groups", "self", *DEFAULTS]) | st.text(
    max_size=5
)
plausible = st.sampled_from([0, 1, 2, {"replicas": 1}, {"env": {}}, "Never", "1Gi", {"cpu": 1}, "tensorflow", None, {}, []])


class TestOddInput:
    @given(framework=st.sampled_from(BACKENDS) | odd, soup=st.dictionaries(names, plausible | anything))
    def test_anything_is_a_job_or_refused(self, framework, soup):
        """
        Arbitrary keywords give a job that is as good as any other, or an error made for the user.
        """
        soup.pop("framework", None)
        found = made_or_refused(lambda: Job(framework, **soup))
        if isinstance(found, Job):
            assert pickle.loads(pickle.dumps(found)) == found
        else:
            assert isinstance(found, (InvalidJobError, UnknownBackendError, UnknownEngineError))
            assert not isinstance(found, InvalidJobError) or found.field

    @pytest.mark.parametrize("key", ["worker", "chief", "local", "paper", "groups", *DEFAULTS, "nonsense", ""])
    def test_each_odd_value_in_each_field(self, key):
        """
        The same for every known oddity in every field, also as part of a list or a mapping.
        """
        shapes = [lambda value: value, lambda value: [value], lambda value: {"replicas": value}, lambda value: {"local": value}]
        for value, shape in itertools.product(ODD, shapes):
            found = made_or_refused(partial(Job, "tensorflow", **{"worker": 1, key: shape(value)}))
            if isinstance(found, DistribError):
                assert isinstance(found, (InvalidJobError, UnknownEngineError))
                assert len(str(found)) < 1000
            else:
                assert pickle.loads(pickle.dumps(found)) == found

    def test_odd_options_of_a_backend(self):
        """
        The options class is somebody else's, and may choke on anything.
        """
        for value in ODD:
            found = made_or_refused(partial(Job, "gossip", seed=1, fan_out=value))
            assert isinstance(found, (Job, InvalidJobError))
