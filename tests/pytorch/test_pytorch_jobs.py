"""
What a PyTorch job may say, and what its replicas find; nothing here imports torch.
"""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distrib import ClusterSpec, InvalidJobError, Job, distributed
from distrib._converter import job_from_data, job_to_data
from distrib._registry import get_backend
from distrib.backends.pytorch import Elastic, PyTorchOptions, process_environment
from distrib.testing.strategies import cluster_specs


def counts(job: Job) -> dict[str, int]:
    """
    Role -> replicas.
    """
    return {group.role: group.replicas for group in job.groups}


class TestOptions:
    """
    How roles, nnodes and elastic go together.
    """

    @pytest.mark.parametrize(
        ("keywords", "expected"),
        [
            ({"elastic": Elastic(max_nodes=4)}, {"worker": 4}),
            ({"elastic": {"min_nodes": 3}}, {"worker": 3}),
            ({"nnodes": "1:2"}, {"worker": 2}),
            ({"nnodes": 2}, {"worker": 2}),
            ({"nnodes": "3"}, {"worker": 3}),
            ({"nproc_per_node": 2}, {"worker": 1}),
            ({"nnodes": 2, "master": 1, "worker": 1}, {"master": 1, "worker": 1}),
            ({"nnodes": "1:2", "worker": {"replicas": 2, "restart_policy": "OnFailure"}}, {"worker": 2}),
            ({"nproc_per_node": "auto", "worker": 3}, {"worker": 3}),
        ],
    )
    def test_options_alone_ask_for_workers(self, keywords: dict[str, Any], expected: dict[str, int]) -> None:
        """
        Where no role is named, the options say how many workers there are; named roles have to agree.
        """
        assert counts(Job("pytorch", **keywords)) == expected

    @pytest.mark.parametrize(
        ("keywords", "said"),
        [
            ({"worker": 3, "nnodes": 2}, ("nnodes=2", "worker=")),
            ({"worker": 3, "nnodes": "1:2"}, ("worker=3", "nnodes=")),
            ({"worker": 3, "elastic": Elastic(max_nodes=2)}, ("worker=3", "elastic=")),
            ({"master": 1, "elastic": Elastic()}, ("master=1", "elastic")),
            ({"nnodes": 3, "elastic": Elastic(max_nodes=2)}, ("nnodes=3", "elastic=")),
            ({"nproc_per_node": 3, "elastic": Elastic(nproc_per_node=2)}, ("nproc_per_node=3", "elastic=")),
            ({"nnodes": "4:1"}, ("nnodes='4:1'", "fewest first")),
            ({"nnodes": "two"}, ("nnodes='two'", "'1:4'")),
            ({"nnodes": "2:"}, ("nnodes='2:'", "'1:4'")),
            ({"nnodes": "a:b"}, ("nnodes='a:b'", "'1:4'")),
            ({"nnodes": "0:2"}, ("nnodes='0:2'", "at least one node")),
            ({"nnodes": 0}, ("nnodes=0",)),
            ({"nnodes": "1:2", "master": 1}, ("master=1", "nnodes=")),
            ({"nproc_per_node": 0}, ("nproc_per_node=0", "from 1")),
            ({"nproc_per_node": -1}, ("nproc_per_node=-1", "from 1")),
            ({"nproc_per_node": True}, ("nproc_per_node=True", "from 1")),
            ({"nproc_per_node": "gpus"}, ("nproc_per_node='gpus'", "'gpu'")),
            ({"elastic": 2}, ("elastic=2: write an Elastic",)),
            ({"elastic": {"max_restart": 1}}, ("elastic.max_restart=1", "max_restarts")),
            ({"elastic": {"min_nodes": 2, "max_nodes": 1}}, ("elastic.max_nodes=1", "min_nodes=2")),
            (
                {"elastic": {"rdzv_configs": {"last_call_timeuot": 1}}},
                ("elastic.rdzv_configs['last_call_timeuot']=1", "'last_call_timeout'"),
            ),
            (
                {"elastic": {"rdzv_configs": {"last_call": 1}}},
                ("elastic.rdzv_configs['last_call']=1", "'last_call_timeout'"),
            ),
            (
                {"elastic": {"rdzv_configs": {"join_timeout": 0.5}}},
                ("elastic.rdzv_configs['join_timeout']=0.5", "a whole number"),
            ),
            ({"elastic": {"rdzv_configs": {"keep_alive_interval": "soon"}}}, ("['keep_alive_interval']='soon'", "a whole number")),
            ({"elastic": {"rdzv_backend": "etcd-v2"}}, ("elastic.rdzv_backend='etcd-v2'", "rdzv_endpoint=")),
            ({"elastic": {"rdzv_endpoint": "etcd"}}, ("elastic.rdzv_endpoint='etcd'", "host")),
            ({"elastic": {"monitor_interval": 0}}, ("elastic.monitor_interval=0",)),
            ({"master": 2}, ("master=2",)),
            ({}, ("worker",)),
            ({"worker": 1, "env": {"MASTER_PORT": "1"}}, ("MASTER_PORT",)),
        ],
    )
    def test_contradictions_are_refused(self, keywords: dict[str, Any], said: tuple[str, ...]) -> None:
        """
        The message names both sides, or the field and what to write.
        """
        with pytest.raises(InvalidJobError) as caught:
            Job("pytorch", **keywords)
        for each in said:
            assert each in str(caught.value)

    def test_a_changed_option_changes_the_workers_that_followed_from_it(self) -> None:
        """
        Workers that only the options asked for follow them; those that were asked for by name stay.
        """
        job = Job("pytorch", elastic=Elastic(max_nodes=2))
        assert counts(job.evolve(elastic=Elastic(max_nodes=5))) == {"worker": 5}
        assert counts(Job("pytorch", worker=3).evolve(nproc_per_node=2)) == {"worker": 3}

    @given(
        st.builds(
            Elastic,
            min_nodes=st.integers(1, 2),
            max_nodes=st.none() | st.integers(2, 3),
            nproc_per_node=st.integers(1, 3) | st.sampled_from(["auto", "gpu", "cpu"]),
            max_restarts=st.integers(0, 3),
            rdzv_endpoint=st.sampled_from([None, "example.com:29400"]),
            rdzv_configs=st.dictionaries(st.sampled_from(["join_timeout", "read_timeout"]), st.integers(1, 60)),
        )
    )
    def test_job_to_data_and_back(self, elastic: Elastic) -> None:
        """
        An elastic job survives the way through plain data.
        """
        job = Job("pytorch", elastic=elastic)
        assert job_from_data(job_to_data(job)) == job
        ranged = Job("pytorch", nnodes=elastic.nnodes, nproc_per_node=elastic.nproc_per_node)
        assert job_from_data(job_to_data(ranged)) == ranged

    def test_settings_that_have_been_through_json(self) -> None:
        """
        Numbers that have become floats on the way are what they were, also in what torchrun is given to read.
        """
        settings = Job("pytorch", elastic={"max_nodes": 2, "rdzv_configs": {"join_timeout": 600.0}}).options.elasticity.rdzv_configs
        assert [(name, str(value)) for name, value in settings.items()] == [("join_timeout", "600")]

    def test_the_operator_is_told_of_a_server(self) -> None:
        """
        The place that nodes are to meet at is the policy's; by itself the operator takes one of the nodes.
        """
        elastic = Elastic(max_nodes=2, rdzv_backend="etcd-v2", rdzv_endpoint="etcd.example.com:2379")
        policies = [
            get_backend("pytorch").manifest(Job("pytorch", image="train:1", elastic=each))["spec"]["elasticPolicy"]
            for each in (elastic, Elastic(max_nodes=2))
        ]
        assert [(policy.get("rdzvHost"), policy.get("rdzvPort")) for policy in policies] == [("etcd.example.com", 2379), (None, None)]

    def test_what_is_needed(self) -> None:
        """
        Only an elastic job goes on without some of its nodes.
        """
        backend = get_backend("pytorch")
        assert backend.needed(Job("pytorch", nnodes="2:3")) == 2
        assert backend.needed(Job("pytorch", worker=2)) is None

    def test_only_what_starts_processes_is_wrapped(self) -> None:
        """
        A node of one process runs the function itself; what is wrapped can be pickled.
        """
        backend = get_backend("pytorch")
        assert backend.wrap(len, Job("pytorch", worker=2)) is len
        for job in (Job("pytorch", nproc_per_node=2), Job("pytorch", elastic=Elastic())):
            assert pickle.loads(pickle.dumps(backend.wrap(len, job))).function is len

    @pytest.mark.parametrize(
        ("keywords", "said"),
        [
            ({"worker": 2}, None),
            (
                {"worker": 2, "nproc_per_node": 4},
                "each node starts 4 processes: LOCAL_RANK 0 to 3, RANK 4 times the node's and LOCAL_RANK, WORLD_SIZE 8",
            ),
            ({"nproc_per_node": "gpu"}, "each node starts a process for each GPU, and sets their variables"),
            (
                {"nnodes": "1:2"},
                "each node starts 1 process by PyTorch's elastic agent, which deals the ranks when 1:2 nodes have met",
            ),
        ],
    )
    def test_plans_tell_of_the_processes_of_a_node(self, keywords: dict[str, Any], said: str | None) -> None:
        """
        Where a node has other processes than the one with the variables that the plan shows, the plan says so.
        """
        plan = str(distributed("pytorch", **keywords)(len).plan([]))
        assert f"  {said}\n" in plan if said else "each node" not in plan

    def test_defaults(self) -> None:
        """
        One process for each node, and nothing elastic.
        """
        assert (PyTorchOptions().processes, PyTorchOptions().elasticity, PyTorchOptions().nodes) == (1, None, None)


class TestEnvironment:
    """
    What a process finds.
    """

    @given(cluster_specs("pytorch"))
    def test_ranks_and_master(self, cluster: Any) -> None:
        """
        Ranks are 0 to world size - 1, once each, and all agree on the master: rank 0's own address.
        """
        seen = [get_backend("pytorch").environment(replica, cluster) for replica in cluster.replicas]
        assert [each["RANK"] for each in seen] == [str(rank) for rank in range(cluster.world_size)]
        assert {each["WORLD_SIZE"] for each in seen} == {str(cluster.world_size)}
        assert {f"{each['MASTER_ADDR']}:{each['MASTER_PORT']}" for each in seen} == {cluster.replicas[0].address}
        for each in seen:
            assert each["PET_NODE_RANK"] == each["GROUP_RANK"] == each["RANK"]
            assert (each["LOCAL_RANK"], each["LOCAL_WORLD_SIZE"]) == ("0", "1")

    @pytest.mark.parametrize(("role", "index", "rank"), [("master", 0, "0"), ("worker", 0, "1"), ("worker", 1, "2")])
    def test_the_operators_variables(self, role: str, index: int, rank: str) -> None:
        """
        Each is as the Kubeflow training operator writes it for a master and workers, but for PYTHONUNBUFFERED, which programs get.
        """
        cluster = ClusterSpec({"master": ["job-master-0:23456"], "worker": ["job-worker-0:23456", "job-worker-1:23456"]})
        (me,) = (replica for replica in cluster.replicas if (replica.role, replica.index) == (role, index))
        seen = get_backend("pytorch").environment(me, cluster)
        written = {
            "MASTER_PORT": "23456",
            "PET_MASTER_PORT": "23456",
            "MASTER_ADDR": "job-master-0",
            "PET_MASTER_ADDR": "job-master-0",
            "WORLD_SIZE": "3",
            "RANK": rank,
            "PET_NODE_RANK": rank,
            "PET_NPROC_PER_NODE": "1",
            "PET_NNODES": "3",
        }
        assert {name: seen[name] for name in written} == written

    @given(nodes=st.integers(1, 4), processes=st.integers(1, 4))
    def test_several_processes_on_a_node(self, nodes: int, processes: int) -> None:
        """
        With several processes on a node RANK is the process's, node by node, as torchrun has it.
        """
        places = [(node, at) for node in range(nodes) for at in range(processes)]
        seen = [process_environment(node=node, nodes=nodes, local_rank=at, processes=processes) for node, at in places]
        assert [int(each["RANK"]) for each in seen] == list(range(nodes * processes))
        for (node, at), each in zip(places, seen, strict=True):
            assert (each["GROUP_RANK"], each["LOCAL_RANK"], each["LOCAL_WORLD_SIZE"]) == (str(node), str(at), str(processes))
            assert each["WORLD_SIZE"] == str(nodes * processes)
