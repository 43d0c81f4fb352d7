"""
PyTorch: a master and workers, each a node of one or more processes, told about each other by ``RANK``, ``MASTER_ADDR`` and the rest.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from distrib import _flyte_wire
from distrib._cluster import ClusterSpec, Replica, replica
from distrib._command import Command
from distrib._frozen import thaw
from distrib._processors import cpu_count
from distrib._refusal import refuse
from distrib.backend import Backend, FlyteTask, Operator, Role
from distrib.errors import DistribError
from distrib.manifests import operator_job

from ._pytorch_options import Elastic, PyTorchOptions, check_agreement

if TYPE_CHECKING:
    from distrib._job import Job
    from distrib._outcome import ByRank

__all__ = ["Elastic", "PyTorchBackend", "PyTorchOptions", "process_environment"]

_THREADS = "OMP_NUM_THREADS"


class PyTorchBackend(Backend):
    """
    Runs PyTorch as the Kubeflow operator and ``torchrun`` do together: every process finds its place in its environment.

    Each replica is a node; rank 0 is the first process of the master, or of worker 0 where there is none.

    .. doctest::

        >>> from distrib import ClusterSpec
        >>> from distrib.backends.pytorch import PyTorchBackend
        >>> cluster = ClusterSpec({"master": ["10.0.0.1:23456"], "worker": ["10.0.0.2:23456"]})
        >>> seen = PyTorchBackend().environment(cluster.replicas[1], cluster)
        >>> [seen[name] for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")]
        ['1', '2', '10.0.0.1', '23456']
    """

    name = "pytorch"
    roles = (Role("master", at_most=1), Role("worker"))
    options = PyTorchOptions
    preload = ("torch",)
    requires = {"torch": "distrib[pytorch]"}
    reserved = (
        *("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME", "MASTER_ADDR", "MASTER_PORT"),
        *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE"),
        *("PET_NODE_RANK", "PET_NNODES", "PET_NPROC_PER_NODE", "PET_MASTER_ADDR", "PET_MASTER_PORT", "PET_RDZV_ENDPOINT"),
        *("TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_USE_AGENT_STORE"),
    )
    operator = Operator(
        kind="PyTorchJob",
        plural="pytorchjobs",
        replica_specs="pytorchReplicaSpecs",
        types={"master": "Master", "worker": "Worker"},
        container="pytorch",
        port_name="pytorchjob-port",
        port=23456,
    )

    def replicas(self, options: Any) -> Mapping[str, int]:
        """
        The workers that the options ask for by themselves.
        """
        return {} if options.nodes is None else {"worker": options.nodes}

    def validate(self, job: Job) -> None:
        """
        Refuse options that contradict each other, or the roles.
        """
        options: PyTorchOptions = job.options
        check_agreement(options)
        elastic = options.elasticity
        named = "elastic" if options.elastic is not None else "nnodes"
        for group in job.groups:
            if elastic is not None and group.role == "master":
                raise refuse("master", group.replicas, f"elastic training has no master; leave it out, or {named}=.")
        if elastic is not None and job.world_size != elastic.nodes:
            raise refuse(
                "worker", job.world_size, f"{named}= asks for {elastic.nodes} nodes at most; write worker={elastic.nodes}, or leave it out."
            )
        if isinstance(options.nnodes, int) and job.world_size != options.nnodes:
            raise refuse("nnodes", options.nnodes, f"master= and worker= make {job.world_size} nodes; leave one of them out.")

    def needed(self, job: Job) -> int | None:
        """
        An elastic job goes on with its fewest nodes.
        """
        elastic = job.options.elasticity
        return None if elastic is None else int(elastic.min_nodes)

    def environment(self, replica: Replica, cluster: ClusterSpec) -> Mapping[str, str]:
        """
        What the operator gives a node, and ``torchrun`` its only process.
        """
        address, _, port = cluster.replicas[0].address.rpartition(":")
        nodes, rank = str(cluster.world_size), str(replica.rank)
        return {
            "MASTER_PORT": port,
            "PET_MASTER_PORT": port,
            "MASTER_ADDR": address,
            "PET_MASTER_ADDR": address,
            "WORLD_SIZE": nodes,
            "RANK": rank,
            "PET_NODE_RANK": rank,
            "PET_NPROC_PER_NODE": "1",
            "PET_NNODES": nodes,
            **process_environment(node=replica.rank, nodes=cluster.world_size, local_rank=0, processes=1),
        }

    def discover(self, environ: Mapping[str, str]) -> Replica | None:
        """
        Who the operator says that this is. To workers without a master it says only how many they are: the rest is the pod's name.
        """
        nodes = environ.get("PET_NNODES", "").rpartition(":")[2]
        if not nodes.isdecimal():
            return None
        port = environ.get("MASTER_PORT", str(self.operator.port))
        if "MASTER_ADDR" in environ and "RANK" in environ:
            job, rank = environ["MASTER_ADDR"].removesuffix("-master-0"), environ["RANK"]
            roles, addresses = {"worker": int(nodes) - 1}, {"master": [f"{environ['MASTER_ADDR']}:{port}"]}
        else:
            job, _, rank = environ.get("HOSTNAME", "").rpartition("-worker-")
            roles, addresses = {"worker": int(nodes)}, {}
        addresses |= {role: [f"{job}-{role}-{index}:{port}" for index in range(count)] for role, count in roles.items()}
        cluster = ClusterSpec(addresses)
        return cluster.replicas[int(rank)] if rank.isdecimal() and int(rank) < cluster.world_size else None

    def manifest(self, job: Job) -> dict[str, Any]:
        """
        The PyTorchJob, with an elastic policy where the job is elastic.
        """
        options: PyTorchOptions = job.options
        manifest = operator_job(job, self.operator, forgets=True)
        manifest["spec"]["nprocPerNode"] = str(options.processes)
        elastic = options.elasticity
        if elastic is not None:
            manifest["spec"]["elasticPolicy"] = {
                "minReplicas": elastic.min_nodes,
                "maxReplicas": elastic.nodes,
                "rdzvBackend": elastic.rdzv_backend,
                **_server(elastic),
                "rdzvConf": [{"key": key, "value": _written(value)} for key, value in elastic.rdzv_configs.items()],
                "maxRestarts": elastic.max_restarts,
            }
        return manifest

    def flyte_task(self, job: Job) -> FlyteTask:
        """
        The task of Flyte's PyTorch plug-in. It always makes a master: where the job has none, worker 0 is it.

        One elastic node is an ordinary task, whose processes we start. So that several find each other, Flyte makes workers only.
        """
        _flyte_wire.check(job)
        options: PyTorchOptions = job.options
        elastic = options.elasticity
        if elastic is not None and elastic.nodes == 1:
            _flyte_wire.check_alone(job)
            return FlyteTask(type="python-task", custom={})
        policy = {"runPolicy": _flyte_wire.run_policy(job.run_policy)}
        if elastic is not None:
            config = {
                "rdzvBackend": elastic.rdzv_backend,
                "minReplicas": elastic.min_nodes,
                "maxReplicas": elastic.nodes,
                # How many "auto" means is counted in the pod.
                "nprocPerNode": options.processes if isinstance(options.processes, int) else 1,
                **({"maxRestarts": elastic.max_restarts} if elastic.max_restarts else {}),
            }
            groups = {"workerReplicas": _flyte_wire.group(job, "worker")}
            return FlyteTask(type="pytorch", version=1, custom={**groups, **policy, "elasticConfig": config})
        first = job.groups[0].role
        groups = {"masterReplicas": _flyte_wire.group(job, first, 1)}
        workers = job.world_size - 1
        if workers:
            groups["workerReplicas"] = _flyte_wire.group(job, "worker", workers)
        return FlyteTask(type="pytorch", version=1, custom={**groups, **policy})

    def wrap(self, function: Callable[..., Any], job: Job) -> Callable[..., Any]:
        """
        The function itself for a node of one process; else what starts the processes of a node.
        """
        options: PyTorchOptions = job.options
        if options.elasticity is None and options.processes == 1:
            return function
        for_all = _THREADS in os.environ or _THREADS in job.env
        chosen = for_all or frozenset(group.role for group in job.groups if _THREADS in group.env)
        return _Node(function, options.processes, options.elasticity, chosen)

    def remark(self, job: Job) -> str:
        """
        The processes of a node, where it is not one that has the node's variables.
        """
        options: PyTorchOptions = job.options
        count, elastic = options.processes, options.elasticity
        words = {"gpu": "a process for each GPU", "cpu": "a process for each processor", "auto": "a process for each GPU, or processor"}
        processes = words.get(str(count), f"{count} {'process' if count == 1 else 'processes'}")
        if elastic is not None:
            return f"each node starts {processes} by PyTorch's elastic agent, which deals the ranks when {elastic.nnodes} nodes have met"
        if isinstance(count, str):
            return f"each node starts {processes}, and sets their variables"
        if count == 1:
            return ""
        return (
            f"each node starts {processes}: LOCAL_RANK 0 to {count - 1}, "
            f"RANK {count} times the node's and LOCAL_RANK, WORLD_SIZE {count * job.world_size}"
        )

    def fork_safe(self) -> bool:
        """
        Whether CUDA has not been started in this process, and no Python thread could be cut off by a fork.
        """
        # Asked of a module that is already loaded, or not at all.
        cuda: Any = sys.modules.get("torch.cuda")
        return threading.active_count() == 1 and not (cuda is not None and cuda.is_initialized())


def process_environment(*, node: int, nodes: int, local_rank: int, processes: int) -> dict[str, str]:
    """
    What ``torchrun`` gives the process *local_rank* of a node, but for the address of the master.

    >>> process_environment(node=1, nodes=2, local_rank=0, processes=4)["RANK"]
    '4'
    """
    rank, world = str(node * processes + local_rank), str(nodes * processes)
    return {
        "RANK": rank,
        "LOCAL_RANK": str(local_rank),
        "GROUP_RANK": str(node),
        "ROLE_RANK": rank,
        "ROLE_NAME": "default",
        "WORLD_SIZE": world,
        "LOCAL_WORLD_SIZE": str(processes),
        "GROUP_WORLD_SIZE": str(nodes),
        "ROLE_WORLD_SIZE": world,
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_MAX_RESTARTS": "0",
        "TORCHELASTIC_RUN_ID": "distrib",
        "TORCHELASTIC_USE_AGENT_STORE": "False",
    }


class _Node:
    """
    Starts the processes of a node, in place of the function that they run.

    Args:
        function: What each process runs.

        processes: How many there are.

        elastic: The settings of elastic training, if it is that.

        threads_chosen: Whose number of threads somebody has chosen: everybody's, or that of these roles. What others find is the
            share that their engine has dealt. Who it is chosen for finds it, unless it was chosen for the launcher, elsewhere.
    """

    def __init__(
        self, function: Callable[..., Any], processes: int | str, elastic: Elastic | None, threads_chosen: Literal[True] | frozenset[str]
    ) -> None:
        self.function = function
        self.processes = processes
        self.elastic = elastic
        self.threads_chosen = threads_chosen
        self.__name__ = getattr(function, "__name__", type(function).__name__)

    def __call__(self, *args: Any, **kwargs: Any) -> ByRank:
        me = replica()
        processes = _count(self.processes)
        is_chosen = self.threads_chosen is True or me.role in self.threads_chosen
        if processes > 1 and not (is_chosen and _THREADS in os.environ):
            # As torchrun does: each process would start a thread for every processor.
            os.environ[_THREADS] = "1"
        call = self.function if isinstance(self.function, Command) else _Call(self.function, args, kwargs)
        if self.elastic is not None:
            from ._elastic import run_elastic

            return run_elastic(call, self.elastic, processes, me)
        from distrib._processes import run_processes

        places = range(processes)
        environments = [process_environment(node=me.rank, nodes=me.world_size, local_rank=at, processes=processes) for at in places]
        return run_processes(
            call,
            [{**each, "PET_NPROC_PER_NODE": str(processes)} for each in environments],
            [me.rank * processes + at for at in places],
        )


class _Call:
    """
    The function and its arguments, in the process that runs it.
    """

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.function = function
        self.args = args
        self.kwargs = kwargs

    def __call__(self) -> Any:
        torch: Any = sys.modules.get("torch")
        threads = os.environ.get(_THREADS, "")
        if torch is not None and threads.isdecimal():
            # Its OpenMP has read the variable before this process was forked.
            torch.set_num_threads(int(threads))
        return self.function(*self.args, **self.kwargs)


def _server(elastic: Elastic) -> dict[str, Any]:
    host, _, port = (elastic.rdzv_endpoint or "").rpartition(":")
    return {"rdzvHost": host, "rdzvPort": int(port)} if port else {}


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(thaw(value))


def _count(processes: int | str) -> int:
    """
    How many processes this node is to run.
    """
    if isinstance(processes, int):
        return processes
    gpus = 0
    if processes != "cpu":
        import torch

        gpus = torch.cuda.device_count()
    if processes == "gpu" and not gpus:
        raise DistribError("nproc_per_node='gpu': this node has no GPU that PyTorch can use. Write 'auto', 'cpu' or a number.")
    return gpus or cpu_count()
