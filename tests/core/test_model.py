"""
What a job is made of is legal, frozen, and says what is wrong.
"""

import copy
import pickle
from functools import partial
from types import MappingProxyType

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd import ODD, anything, made_or_refused

from distrib._frozen import FrozenMap, freeze, thaw
from distrib._model import (
    CleanPodPolicy,
    ReplicaGroup,
    Resources,
    RestartPolicy,
    RestartScope,
    RunPolicy,
    SchedulingPolicy,
    SuccessPolicy,
    TaintEffect,
    Toleration,
    TolerationOperator,
    Volume,
    check_requests,
)
from distrib.errors import InvalidJobError
from distrib.testing import strategies

CLASSES = (Resources, Toleration, Volume, ReplicaGroup, SchedulingPolicy, RunPolicy)

#: What each class needs to be made at all.
NEEDED = {Toleration: {"key": "gpu"}, Volume: {"mount_path": "/data", "claim": "data"}}

values = st.one_of(
    strategies.resources(),
    strategies.tolerations(),
    strategies.volumes(),
    strategies.replica_groups(),
    strategies.scheduling_policies(),
    strategies.run_policies(),
)


def refusal(kind, **fields):
    """
    The error that making a *kind* of *fields* raises.
    """
    with pytest.raises(InvalidJobError) as caught:
        kind(**fields)
    return caught.value


class TestValues:
    @given(values)
    def test_copies_are_equal(self, value):
        """
        A value is equal to its copy, its pickled self and one made of its own fields, and hashes like them.
        """
        fields = {field.name: getattr(value, field.name) for field in attrs.fields(type(value))}
        for other in (copy.deepcopy(value), pickle.loads(pickle.dumps(value)), type(value)(**fields)):
            assert other == value
            assert hash(other) == hash(value)

    @given(values)
    def test_what_is_shown_can_be_written(self, value):
        """
        The repr is an expression for the same value.
        """
        names = {kind.__name__: kind for kind in CLASSES}
        assert eval(repr(value), names) == value

    @given(values)
    def test_mappings_are_frozen(self, value):
        """
        No field can be changed, neither can what it holds.
        """
        for field in attrs.fields(type(value)):
            with pytest.raises(attrs.exceptions.FrozenInstanceError):
                setattr(value, field.name, None)
            held = getattr(value, field.name)
            assert isinstance(hash(held), int)
            if isinstance(held, FrozenMap):
                with pytest.raises(TypeError):
                    held["new"] = ""

    def test_nothing_of_the_callers_is_aliased(self):
        """
        What the caller does to a mapping or a list afterwards does not reach the value.
        """
        env = {"A": "1"}
        affinity = {"nodeAffinity": {"terms": [{"weight": 1}]}}
        volumes = [{"mount_path": "/data", "claim": "data"}]
        group = ReplicaGroup(env=env, affinity=affinity, volumes=volumes)
        env["B"] = "2"
        affinity["nodeAffinity"]["terms"].append({})
        volumes.clear()
        assert group.env == {"A": "1"}
        assert group.affinity == {"nodeAffinity": {"terms": ({"weight": 1},)}}
        assert group.volumes == (Volume(mount_path="/data", claim="data"),)

    def test_any_mapping_will_do(self):
        """
        A read-only view is as good as a dict.
        """
        view = MappingProxyType({"A": "1"})
        assert ReplicaGroup(env=view) == ReplicaGroup(env={"A": "1"})

    def test_order_is_kept_and_does_not_count(self):
        """
        A mapping keeps its order for people; two with the same items are equal.
        """
        one, other = ReplicaGroup(env={"A": "1", "B": "2"}), ReplicaGroup(env={"B": "2", "A": "1"})
        assert list(other.env) == ["B", "A"]
        assert one == other
        assert hash(one) == hash(other)


class TestFrozenMap:
    @given(st.dictionaries(st.text(), st.integers()))
    def test_it_is_its_dict(self, items):
        """
        It has the items, the equality and the repr of the dict that it was made of.
        """
        frozen = FrozenMap(items)
        assert dict(frozen) == items == frozen
        assert frozen == FrozenMap(items) == MappingProxyType(items)
        assert repr(frozen) == repr(items)
        assert len(frozen) == len(items)
        assert all(frozen[key] == value for key, value in items.items())

    def test_it_is_equal_to_mappings_only(self):
        """
        A list of pairs is something else.
        """
        assert FrozenMap({"a": 1}) != [("a", 1)]

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers(-100, 100) | st.text(max_size=3),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        )
    )
    def test_thawing_undoes_freezing(self, data):
        """
        Plain data comes back as it was, in fresh containers.
        """
        assert thaw(freeze(data)) == data
        assert isinstance(hash(freeze(data)), int)


class TestWords:
    @pytest.mark.parametrize(
        ("spelling", "member"),
        [
            ("OnFailure", RestartPolicy.ON_FAILURE),
            ("on_failure", RestartPolicy.ON_FAILURE),
            ("ON-FAILURE", RestartPolicy.ON_FAILURE),
            ("never", RestartPolicy.NEVER),
            (RestartPolicy.EXIT_CODE, RestartPolicy.EXIT_CODE),
            (None, None),
        ],
    )
    def test_any_unambiguous_spelling(self, spelling, member):
        """
        A word may be written as its member, its wire form, or its name, in any case.
        """
        assert ReplicaGroup(restart_policy=spelling).restart_policy is member

    def test_all_words_are_taken(self):
        """
        Each field of words takes its own wire forms.
        """
        policy = RunPolicy(clean_pod_policy="None", success_policy="AllWorkers", restart_scope="Job")
        assert policy.clean_pod_policy is CleanPodPolicy.NONE
        assert policy.success_policy is SuccessPolicy.ALL_WORKERS
        assert policy.restart_scope is RestartScope.JOB
        assert RunPolicy(success_policy="").success_policy is SuccessPolicy.DEFAULT
        toleration = Toleration(operator="Exists", effect="NoExecute")
        assert toleration.operator is TolerationOperator.EXISTS
        assert toleration.effect is TaintEffect.NO_EXECUTE

    @pytest.mark.parametrize("word", ["Sometimes", "", 3, CleanPodPolicy.RUNNING, True, b"Never"], ids=repr)
    def test_other_words_are_refused(self, word):
        """
        The legal words are listed; those of another field are not taken.
        """
        error = refusal(ReplicaGroup, restart_policy=word)
        assert error.field == "restart_policy"
        assert "Legal: Never, OnFailure, Always, ExitCode." in str(error)

    def test_the_nearest_word_is_named(self):
        """
        A slip of the pen is recognised.
        """
        assert "Did you mean 'OnFailure'?" in str(refusal(ReplicaGroup, restart_policy="OnFailur"))

    def test_none_is_no_clean_pod_policy(self):
        """
        The policy "None" is a word; Python's None is not it.
        """
        assert refusal(RunPolicy, clean_pod_policy=None).field == "clean_pod_policy"


REFUSED = [
    (ReplicaGroup, {"replicas": -1}, "replicas", "from 0 to 2147483647"),
    (ReplicaGroup, {"replicas": True}, "replicas", "whole number"),
    (ReplicaGroup, {"replicas": "2"}, "replicas", "whole number"),
    (ReplicaGroup, {"replicas": 2**31}, "replicas", "2147483647"),
    (ReplicaGroup, {"replicas": 1.0}, "replicas", "whole number"),
    (ReplicaGroup, {"role": "Worker"}, "role", "lower-case"),
    (ReplicaGroup, {"role": "worker\n"}, "role", "lower-case"),
    (ReplicaGroup, {"image": ""}, "image", "container image"),
    (ReplicaGroup, {"image": "train: 1"}, "image", "container image"),
    (ReplicaGroup, {"env": None}, "env", "write a mapping"),
    (ReplicaGroup, {"env": {"": "x"}}, "env['']", "printable ASCII"),
    (ReplicaGroup, {"env": {"A=B": "x"}}, "env['A=B']", "other than '='"),
    (ReplicaGroup, {"env": {"A\0": "x"}}, "env['A\\x00']", "printable ASCII"),
    (ReplicaGroup, {"env": {1: "x"}}, "env[1]", "printable ASCII"),
    (ReplicaGroup, {"env": {"A": 1}}, "env['A']", "write '1'"),
    (ReplicaGroup, {"env": {"A": 0.5}}, "env['A']", "write '0.5'"),
    (ReplicaGroup, {"env": {"A": True}}, "env['A']", "write text"),
    (ReplicaGroup, {"env": {"A": "a\0b"}}, "env['A']", "NUL"),
    (ReplicaGroup, {"env": {"A": "\udcff"}}, "env['A']", "UTF-8"),
    (ReplicaGroup, {"labels": {"app": "a b"}}, "labels['app']", "at most 63"),
    (ReplicaGroup, {"labels": {"app": "x" * 64}}, "labels['app']", "at most 63"),
    (ReplicaGroup, {"labels": {"-app": "x"}}, "labels['-app']", "label key"),
    (ReplicaGroup, {"annotations": {"a/b/c": "x"}}, "annotations['a/b/c']", "label key"),
    (ReplicaGroup, {"node_selector": {"gpu": True}}, "node_selector['gpu']", "letters, digits"),
    (ReplicaGroup, {"service_account": "Trainer"}, "service_account", "Kubernetes name"),
    (ReplicaGroup, {"service_account": "x" * 254}, "service_account", "Kubernetes name"),
    (ReplicaGroup, {"pull_secrets": "registry"}, "pull_secrets", "write a list"),
    (ReplicaGroup, {"pull_secrets": ["a", "B"]}, "pull_secrets[1]", "Kubernetes name"),
    (ReplicaGroup, {"priority_class": 3}, "priority_class", "Kubernetes name"),
    (ReplicaGroup, {"affinity": {"nodeAfinity": {}}}, "affinity.nodeAfinity", "Did you mean 'nodeAffinity'"),
    (ReplicaGroup, {"affinity": {"podAffinity": {"a": [1, {2}]}}}, "affinity['podAffinity']['a'][1]", "no plain data"),
    (ReplicaGroup, {"affinity": {"podAffinity": {"a": float("nan")}}}, "affinity['podAffinity']['a']", "finite"),
    (ReplicaGroup, {"affinity": {"podAffinity": {"a": 2**64}}}, "affinity['podAffinity']['a']", "64 bits"),
    (ReplicaGroup, {"affinity": {"podAffinity": {1: 2}}}, "affinity['podAffinity'][1]", "key as text"),
    (ReplicaGroup, {"requests": {"cpuu": 1}}, "requests.cpuu", "Did you mean 'cpu'"),
    (ReplicaGroup, {"requests": 4}, "requests", "Resources"),
    (ReplicaGroup, {"requests": {"cpu": 2}, "limits": {"cpu": 1}}, "requests.cpu", "limits.cpu='1'"),
    (ReplicaGroup, {"requests": {"gpu": 1}, "limits": {"gpu": 2}}, "requests.gpu", "devices cannot be shared"),
    (
        ReplicaGroup,
        {"limits": {"extended": {"rdma/hca": 2}}, "requests": {"extended": {"rdma/hca": 1}}},
        "requests.extended['rdma/hca']",
        "devices",
    ),
    (ReplicaGroup, {"volumes": [{"mount_path": "/a", "claim": "b"}] * 2}, "volumes[1].mount_path", "one place"),
    (ReplicaGroup, {"volumes": {"mount_path": "/a"}}, "volumes", "write a list"),
    (ReplicaGroup, {"volumes": ["/data"]}, "volumes[0]", "Volume"),
    (ReplicaGroup, {"volumes": [{"claim": "data"}]}, "volumes[0]", "needs mount_path"),
    (ReplicaGroup, {"tolerations": [{"key": "a", "oprator": "Exists"}]}, "tolerations[0].oprator", "Did you mean 'operator'"),
    (Resources, {"cpu": "four"}, "cpu", "'500m'"),
    (Resources, {"cpu": True}, "cpu", "write a number"),
    (Resources, {"cpu": -1}, "cpu", "0 or more"),
    (Resources, {"memory": "4GB"}, "memory", "'4Gi'"),
    (Resources, {"gpu": 0.5}, "gpu", "whole number"),
    (Resources, {"gpu": -1}, "gpu", "0 or more"),
    (Resources, {"gpu": "1Ti"}, "gpu", "whole number"),
    (Resources, {"extended": {"gpu": 1}}, "extended['gpu']", "full name"),
    (Resources, {"extended": {"kubernetes.io/x": 1}}, "extended['kubernetes.io/x']", "full name"),
    (Resources, {"extended": {"rdma/hca": "1500m"}}, "extended['rdma/hca']", "whole number"),
    (Resources, {"extended": {"nvidia.com/gpu": 1}}, "extended['nvidia.com/gpu']", "write gpu= instead"),
    (Volume, {"mount_path": "data", "claim": "a"}, "mount_path", "absolute"),
    (Volume, {"mount_path": "/a:b", "claim": "a"}, "mount_path", "without ':'"),
    (Volume, {"mount_path": "/a"}, "mount_path", "exactly one of claim, nfs, config_map, secret, empty_dir, not none"),
    (Volume, {"mount_path": "/a", "claim": "a", "secret": "b"}, "mount_path", "not claim and secret"),
    (Volume, {"mount_path": "/a", "nfs": "server"}, "nfs", "'server:/exported/path'"),
    (Volume, {"mount_path": "/a", "claim": "a", "size_limit": "1Gi"}, "size_limit", "only empty_dir"),
    (Volume, {"mount_path": "/a", "claim": "a", "sub_path": "../b"}, "sub_path", "without '..'"),
    (Volume, {"mount_path": "/a", "claim": "a", "sub_path": "/b"}, "sub_path", "relative"),
    (Volume, {"mount_path": "/a", "claim": "a", "read_only": 1}, "read_only", "True or False"),
    (Volume, {"mount_path": "/a", "empty_dir": "1Gi"}, "empty_dir", "True or False"),
    (Toleration, {}, "key", "operator='Exists'"),
    (Toleration, {"key": "a b"}, "key", "label key"),
    (Toleration, {"key": "a", "operator": "Exists", "value": "x"}, "value", "leave the value out"),
    (Toleration, {"key": "a", "toleration_seconds": 3}, "toleration_seconds", "NoExecute"),
    (Toleration, {"key": "a", "effect": "NoRun"}, "effect", "NoSchedule"),
    (RunPolicy, {"active_deadline_seconds": 0}, "active_deadline_seconds", "None sets no deadline"),
    (RunPolicy, {"active_deadline_seconds": 2**31}, "active_deadline_seconds", "2147483647"),
    (RunPolicy, {"ttl_seconds_after_finished": -1}, "ttl_seconds_after_finished", "from 0"),
    (RunPolicy, {"backoff_limit": 1.5}, "backoff_limit", "whole number"),
    (RunPolicy, {"suspend": "no"}, "suspend", "True or False"),
    (RunPolicy, {"scheduling_policy": {"min_available": 0}}, "scheduling_policy.min_available", "from 1"),
    (RunPolicy, {"scheduling_policy": {"min_resources": {"cpu": "x"}}}, "scheduling_policy.min_resources.cpu", "'500m'"),
    (RunPolicy, {"scheduling_policy": {"schedule_timeout_seconds": 0}}, "scheduling_policy.schedule_timeout_seconds", "from 1"),
    (SchedulingPolicy, {"queue": "a b"}, "queue", "Kubernetes name"),
]


class TestRefusals:
    @pytest.mark.parametrize(
        ("kind", "fields", "field", "remedy"), REFUSED, ids=[f"{number}-{row[2]}" for number, row in enumerate(REFUSED)]
    )
    def test_the_field_and_the_remedy_are_named(self, kind, fields, field, remedy):
        """
        An error names the field by its path, shows the value, and says what to write.
        """
        error = refusal(kind, **fields)
        assert error.field == field
        assert str(error).startswith(f"{field}=")
        assert remedy in str(error)

    def test_what_is_legal_though_it_looks_odd(self):
        """
        Zero is a legal count, time to live, backoff limit and amount; odd but legal names are taken.
        """
        assert ReplicaGroup(replicas=0, env={"my.var-1": "", "a b": "=\n"}).replicas == 0
        assert RunPolicy(ttl_seconds_after_finished=0, backoff_limit=0).backoff_limit == 0
        assert Resources(cpu=0, gpu=0, extended={"hugepages-2Mi": "4Mi"}).gpu == 0
        assert ReplicaGroup(labels={"example.com/App_1": ""}, annotations={"note": "two\nlines"}).labels == {"example.com/App_1": ""}

    def test_thousandths_are_the_finest(self):
        """
        Amounts are rounded up to thousandths, as the API server rounds them.
        """
        assert Resources(cpu="100u", memory="0.5") == Resources(cpu="1m", memory="500m")

    def test_long_values_are_cut(self):
        """
        A message stays readable whatever was given.
        """
        assert len(str(refusal(ReplicaGroup, image=" " * 10**6))) < 300

    @given(kind=st.sampled_from(CLASSES), data=st.data())
    def test_any_value_gives_a_value_or_an_error_that_names_the_field(self, kind, data):
        """
        Nothing else is ever raised, and what is made is as good as any other.
        """
        name = data.draw(st.sampled_from([field.name for field in attrs.fields(kind)]))
        fields = {**NEEDED.get(kind, {}), name: data.draw(anything)}
        found = made_or_refused(partial(kind, **fields))
        if isinstance(found, InvalidJobError):
            assert found.field
            assert str(found).startswith(found.field)
            assert len(str(found)) < 1000
        else:
            assert pickle.loads(pickle.dumps(found)) == found
            assert isinstance(hash(found), int)

    @pytest.mark.parametrize("kind", CLASSES)
    def test_each_odd_value_in_each_field(self, kind):
        """
        The same for every known oddity in every field.
        """
        for field in attrs.fields(kind):
            for value in ODD:
                found = made_or_refused(partial(kind, **{**NEEDED.get(kind, {}), field.name: value}))
                if isinstance(found, InvalidJobError):
                    assert found.field.startswith((field.name, "key", "mount_path", "effect"))
                else:
                    assert pickle.loads(pickle.dumps(found)) == found


class TestResources:
    @given(strategies.resources(), strategies.resources())
    def test_over_leaves_nothing_out(self, own, other):
        """
        The own amounts win, those left open are the other's, and nothing is lost.
        """
        merged = own.over(other)
        taken = {field: text for field, text, _ in merged.amounts()}
        own_amounts = {field: text for field, text, _ in own.amounts()}
        others = {field: text for field, text, _ in other.amounts()}
        assert taken == {**others, **own_amounts}
        assert own.over(None) is own
        assert own.over(Resources()) == own

    @given(strategies.resources())
    def test_resources_are_within_themselves(self, value):
        """
        Requests that equal their limits are legal, and so are those without limits.
        """
        check_requests(value, value)
        check_requests(value, None)
        check_requests(None, value)
        check_requests(value, Resources())
