"""
What Flyte does to run a task, done by hand: its back end says what to create, and files are handed over in a folder.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from collections import OrderedDict
from pathlib import Path
from typing import Any

import attrs
from outside import Cluster, has_ended, until

from distrib._frozen import freeze
from distrib.engines.kubernetes._patch import patched

#: Names the program that shows what Flyte makes of a task; `nox -s judge` builds it.
JUDGE = "DISTRIB_FLYTE_JUDGE"
#: What pods have on their path: the console script is another interpreter's.
EXECUTE = "#!/usr/bin/env python3\nfrom flytekit.bin.entrypoint import execute_task_cmd\n\nexecute_task_cmd()\n"


@attrs.frozen(kw_only=True)
class Attempt:
    """
    One attempt of a task: the job that Flyte creates for it, and the folder that Flyte reads.
    """

    cluster: Cluster
    job: dict[str, Any]
    folder: Path
    outputs: Path

    @property
    def name(self) -> str:
        """
        That of the job.
        """
        return str(self.job["metadata"]["name"])

    @property
    def plural(self) -> str:
        """
        What Kubernetes calls such jobs.
        """
        return str(self.job["kind"]).lower() + "s"

    def create(self) -> None:
        """
        Have the operator start it.
        """
        self.cluster.custom.create_namespaced_custom_object("kubeflow.org", "v1", self.cluster.namespace, self.plural, self.job)

    def delete(self) -> None:
        """
        Take it away, with its pods and its files.
        """
        self.cluster.custom.delete_namespaced_custom_object("kubeflow.org", "v1", self.cluster.namespace, self.plural, self.name)
        shutil.rmtree(self.folder, ignore_errors=True)

    def wait(self, seconds: float = 180) -> str:
        """
        How the operator says that it has ended, once all of its pods have.
        """
        until(self._ended, f"{self.name} has ended", seconds, self.logs)
        return str(until(self._verdict, f"the operator's word on {self.name}", seconds))

    def _ended(self) -> bool | None:
        pods = self._pods()
        replicas = sum(spec["replicas"] for spec in _specs(self.job).values())
        return (len(pods) == replicas and all(map(has_ended, pods))) or None

    def _verdict(self) -> str | None:
        get = self.cluster.custom.get_namespaced_custom_object
        status = get("kubeflow.org", "v1", self.cluster.namespace, self.plural, self.name).get("status", {})
        found = [each["type"] for each in status.get("conditions", ()) if each["status"] == "True"]
        return next((each for each in found if each in ("Succeeded", "Failed")), None)

    def _pods(self) -> list[Any]:
        label = f"training.kubeflow.org/job-name={self.name}"
        found: list[Any] = self.cluster.core.list_namespaced_pod(self.cluster.namespace, label_selector=label).items
        return found

    def logs(self) -> dict[str, str]:
        """
        Replica -> what its pod has written.
        """
        read, names = self.cluster.core.read_namespaced_pod_log, [pod.metadata.name for pod in self._pods()]
        return {name.removeprefix(f"{self.name}-"): str(read(name, self.cluster.namespace)) for name in names}

    def left(self) -> list[str]:
        """
        The files that Flyte reads.
        """
        return sorted(path.name for path in self.outputs.iterdir()) if self.outputs.exists() else []

    def value(self) -> Any:
        """
        What outputs.pb holds.
        """
        from flyteidl.core.literals_pb2 import LiteralMap

        return LiteralMap.FromString((self.outputs / "outputs.pb").read_bytes()).literals["o0"].scalar.primitive.string_value

    def error(self) -> Any:
        """
        What error.pb holds.
        """
        from flyteidl.core.errors_pb2 import ErrorDocument

        return ErrorDocument.FromString((self.outputs / "error.pb").read_bytes()).error


def attempted(cluster: Cluster, task: Any, **inputs: Any) -> Attempt:
    """
    The job that Flyte's back end makes of a task, ready to be created: its pods have this cluster's folders, and the file of the task.
    """
    execution = f"f{secrets.token_hex(4)}"
    folder = Path(str(cluster.storage), execution)
    job = _judged(cluster, task, execution, folder)
    # Nobody has started a workflow that it could belong to.
    del job["metadata"]["ownerReferences"]
    given, prefix = (Path(_argument(job, option)) for option in ("--inputs", "--output-prefix"))
    # Whoever the pods run as, they may write here.
    mask = os.umask(0)
    try:
        prefix.mkdir(parents=True)
        (folder / "code").mkdir()
    finally:
        os.umask(mask)
    given.write_bytes(_literals(task, inputs))
    shutil.copy(Path(__file__).with_name("flyte_programs.py"), folder / "code")
    script = folder / "code" / "pyflyte-execute"
    script.write_text(EXECUTE)
    script.chmod(0o755)
    for spec in _specs(job).values():
        spec["template"] = _at_home(spec["template"], cluster, folder / "code")
    return Attempt(cluster=cluster, job=job, folder=folder, outputs=prefix)


def _judged(cluster: Cluster, task: Any, execution: str, folder: Path) -> dict[str, Any]:
    from flytekit.configuration import Image, ImageConfig, SerializationSettings
    from flytekit.tools.translator import get_serializable

    image = ImageConfig(default_image=Image("default", *cluster.image.rsplit(":", 1)))
    settings = SerializationSettings(project="p", domain="d", version="v", image_config=image)
    message = get_serializable(OrderedDict(), settings, task).to_flyte_idl().SerializeToString()
    places = (f"-execution={execution}", f"-namespace={cluster.namespace}", f"-bucket={folder}")
    done = subprocess.run([os.environ[JUDGE], *places, "-o", "json", "-"], input=message, capture_output=True, check=True, timeout=60)
    job: dict[str, Any] = json.loads(done.stdout)
    return job


def _literals(task: Any, inputs: dict[str, Any]) -> bytes:
    from flytekit.core.context_manager import FlyteContextManager
    from flytekit.core.type_engine import TypeEngine

    literals = TypeEngine.dict_to_literal_map(FlyteContextManager.current_context(), inputs, task.python_interface.inputs)
    message: bytes = literals.to_flyte_idl().SerializeToString()
    return message


def _at_home(template: dict[str, Any], cluster: Cluster, code: Path) -> dict[str, Any]:
    """
    A pod as this cluster wants it, which finds the task's file and Flyte's command.
    """
    container = template["spec"]["containers"][0]
    made = patched(template, freeze(cluster.pod_patch), container["name"])
    variables = {each["name"]: each for each in made["spec"]["containers"][0]["env"]}
    for name, usual in (("PYTHONPATH", ""), ("PATH", "/usr/local/bin:/usr/bin:/bin")):
        before = variables.get(name, {}).get("value") or usual
        variables[name] = {"name": name, "value": os.pathsep.join(filter(None, (str(code), before)))}
    made["spec"]["containers"][0]["env"] = list(variables.values())
    return made


def _specs(job: dict[str, Any]) -> dict[str, Any]:
    return dict(next(value for key, value in job["spec"].items() if key.endswith("ReplicaSpecs")))


def _argument(job: dict[str, Any], option: str) -> str:
    arguments = next(iter(_specs(job).values()))["template"]["spec"]["containers"][0]["args"]
    return str(arguments[arguments.index(option) + 1])
