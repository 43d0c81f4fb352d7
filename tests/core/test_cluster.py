"""
All replicas of a job agree on who is in the cluster, and each knows its own place.
"""

import json
import os
import pickle
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd import ODD

from distrib._cluster import REPLICA_VARIABLE, ClusterSpec, Replica, decode_replica, encode_cluster, encode_replica, replica
from distrib._registry import get_backend
from distrib.errors import InvalidJobError
from distrib.testing import strategies

any_cluster = st.sampled_from(["tensorflow", "gossip", "bare"]).flatmap(strategies.cluster_specs)


def large_cluster(size):
    """
    A chief and workers, *size* in all.
    """
    return ClusterSpec({"chief": ["chief:1"], "worker": [f"10.0.{place >> 8}.{place & 255}:2222" for place in range(size - 1)]})


class TestClusterSpec:
    @given(any_cluster)
    def test_ranks_are_all_numbers_once(self, cluster):
        """
        Ranks are 0..world_size-1 in order, and names are distinct.
        """
        assert [member.rank for member in cluster.replicas] == list(range(cluster.world_size))
        assert len({member.name for member in cluster.replicas}) == cluster.world_size

    @given(any_cluster)
    def test_each_replica_has_an_address_of_its_own(self, cluster):
        """
        Addresses are distinct, and each replica's is the one that its role and index name.
        """
        addresses = [member.address for member in cluster.replicas]
        assert len(set(addresses)) == len(addresses)
        assert addresses == [address for of_role in cluster.values() for address in of_role]
        assert all(cluster[member.role][member.index] == member.address for member in cluster.replicas)

    @given(any_cluster)
    def test_it_is_a_value(self, cluster):
        """
        A copy is equal and hashes the same, in the same order; it is not its dict.
        """
        for other in (ClusterSpec(cluster), pickle.loads(pickle.dumps(cluster)), eval(repr(cluster))):
            assert other == cluster
            assert hash(other) == hash(cluster)
            assert list(other.items()) == list(cluster.items())
        assert cluster != dict(cluster)

    def test_the_order_of_the_roles_counts(self):
        """
        It is the order of the ranks.
        """
        assert ClusterSpec({"a": ["x:1"], "b": ["y:1"]}) != ClusterSpec({"b": ["y:1"], "a": ["x:1"]})

    def test_a_role_without_addresses_is_left_out(self):
        """
        No replicas are no role.
        """
        assert ClusterSpec({"chief": [], "worker": ("w:1",)}) == ClusterSpec({"worker": ["w:1"]})
        assert ClusterSpec({}).world_size == 0

    def test_nothing_of_the_callers_is_aliased(self):
        """
        What is done to the list afterwards does not reach the cluster.
        """
        workers = ["w:1"]
        cluster = ClusterSpec({"worker": workers})
        workers.append("v:1")
        assert cluster.world_size == 1

    @pytest.mark.parametrize(
        "address", ["w", "w:", ":1", "w:x", "w:0", "w:65536", "w:-1", "w:1 ", "w:\uff11", "http://w:1", "a b:1", "", 3, None]
    )
    def test_what_is_no_address_is_refused(self, address):
        """
        An address is a host and a port from 1 to 65535.
        """
        with pytest.raises(InvalidJobError, match=r"^cluster\['worker'\]\[1\]=.*write 'host:port'"):
            ClusterSpec({"worker": ["w:1", address]})

    @pytest.mark.parametrize("address", ["w:1", "10.0.0.1:65535", "[::1]:80", "a-b.c.svc:2222"])
    def test_what_is_an_address(self, address):
        """
        Names, numbers and IPv6 in brackets are hosts.
        """
        assert ClusterSpec({"worker": [address]})["worker"] == (address,)

    def test_two_replicas_cannot_share_an_address(self):
        """
        The second one is named.
        """
        with pytest.raises(InvalidJobError, match="another replica has the same address") as caught:
            ClusterSpec({"chief": ["w:1"], "worker": ["v:1", "w:1"]})
        assert caught.value.field == "cluster['worker'][1]"

    def test_a_text_is_no_list(self):
        """
        A single address is not taken for a list of characters.
        """
        with pytest.raises(InvalidJobError, match="write a list of addresses"):
            ClusterSpec({"worker": "w:1"})

    def test_odd_addresses_are_refused(self):
        """
        No object, however odd, is taken for an address.
        """
        for value in ODD:
            with pytest.raises(InvalidJobError, match=r"^cluster"):
                ClusterSpec({"worker": [value]})


class TestReplica:
    def test_outside_of_any_run(self, monkeypatch):
        """
        A process that is no replica is the only one of a world of one, and its coordinator.
        """
        monkeypatch.delenv(REPLICA_VARIABLE, raising=False)
        me = replica()
        assert (me.role, me.index, me.rank, me.world_size, me.is_coordinator, me.address) == ("worker", 0, 0, 1, True, "")

    @given(any_cluster, st.data())
    def test_decoding_undoes_encoding(self, cluster, data):
        """
        A replica reads back who it is, where it stands, and everybody's addresses.
        """
        text = encode_cluster(cluster)
        for member in cluster.replicas:
            sent = Replica(role=member.role, index=member.index, rank=member.rank, cluster=cluster, is_coordinator=data.draw(st.booleans()))
            encoded = encode_replica(sent, text)
            assert decode_replica(encoded) == sent
            assert json.loads(encoded)["cluster"] == {role: list(addresses) for role, addresses in cluster.items()}

    @given(any_cluster)
    def test_all_agree_on_the_cluster(self, cluster):
        """
        What each replica reads has the same cluster, and the ranks of all are distinct.
        """
        text = encode_cluster(cluster)
        read = [decode_replica(encode_replica(member, text)) for member in cluster.replicas]
        assert {member.cluster for member in read} == {cluster}
        assert [member.rank for member in read] == list(range(cluster.world_size))

    def test_the_environment_tells(self):
        """
        In a process with the variable set, ``replica()`` is that replica.
        """
        cluster = ClusterSpec({"worker": ["a:1", "b:1"]})
        text = encode_replica(cluster.replicas[1], encode_cluster(cluster))
        program = "import distrib; me = distrib.replica(); print(me.name, me.rank, me.world_size, me.address, me.is_coordinator)"
        done = subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, REPLICA_VARIABLE: text}, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == ["worker-1", "1", "2", "b:1", "False"]

    def test_two_thousand_replicas_are_fast(self):
        """
        Making, encoding and rendering a cluster of 2,000 takes well below a second; so does reading it in a few replicas.
        """
        cluster = large_cluster(2000)
        backend = get_backend("tensorflow")
        start = time.process_time()
        text = encode_cluster(large_cluster(2000))
        encoded = [encode_replica(member, text) for member in cluster.replicas]
        environments = [backend.environment(member, cluster) for member in cluster.replicas]
        assert [decode_replica(text).rank for text in encoded[::400]] == [0, 400, 800, 1200, 1600]
        assert time.process_time() - start < 0.8
        assert len(environments) == 2000


class TestBackends:
    @given(st.sampled_from(["tensorflow", "gossip"]).flatmap(lambda name: st.tuples(st.just(name), strategies.cluster_specs(name))))
    def test_environments_are_text_and_the_same_each_time(self, drawn):
        """
        An environment is text, equal for equal input, and the coordinator is one of the replicas.
        """
        name, cluster = drawn
        backend = get_backend(name)
        assert backend.coordinator(cluster) in cluster.replicas
        for member in cluster.replicas:
            environment = dict(backend.environment(member, cluster))
            assert environment == backend.environment(member, ClusterSpec(dict(cluster)))
            assert all(isinstance(text, str) for pair in environment.items() for text in pair)
