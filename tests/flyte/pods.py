"""
Pods of a Flyte cluster, each a ``pyflyte-execute`` with the environment that the operator gives it, on one folder.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from flyteidl.core import errors_pb2, literals_pb2
from flytekit.configuration import Image, ImageConfig, SerializationSettings
from flytekit.core.context_manager import FlyteContextManager
from flytekit.core.type_engine import TypeEngine
from flytekit.models.literals import LiteralMap

from distrib._linux import kill_and_wait, processes_with

HERE = Path(__file__).parent
SCRIPTS = Path(sys.executable).parent
SETTINGS = SerializationSettings(
    project="p", domain="d", version="v", env={}, image_config=ImageConfig(default_image=Image("default", "img", "tag"))
)
#: None of these may come from whoever runs the tests.
FOREIGN = ("TF_CONFIG", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "DISTRIB_REPLICA", "DISTRIB_RUN_ID", "OMP_NUM_THREADS")


class Attempt:
    """
    One attempt of a task: its inputs, its folder, and its pods.

    Args:
        folder: An empty folder.

        task: The task.

        inputs: Its inputs.
    """

    def __init__(self, folder, task, **inputs):
        self.folder = folder
        self.outputs = folder / "outputs"
        self.task = task
        self.pods = {}
        literals = TypeEngine.dict_to_literal_map(FlyteContextManager.current_context(), inputs, task.python_interface.inputs)
        (folder / "inputs.pb").write_bytes(literals.to_flyte_idl().SerializeToString())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pod in self.pods.values():
            pod.kill()
            pod.wait()
        # Of a pod that is killed nothing is left on a cluster; of a process that stands in for one, its children are.
        kill_and_wait(processes_with("FLYTE_TEST_FOLDER", str(self.folder)), 10.0)

    def command(self):
        """
        What the template has the container run, the folders filled in.
        """
        places = {
            "{{.input}}": self.folder / "inputs.pb",
            "{{.outputPrefix}}": self.outputs,
            "{{.rawOutputDataPrefix}}": self.folder / "raw",
            "{{.checkpointOutputPrefix}}": self.folder / "checkpoint",
            "{{.prevCheckpointPrefix}}": '""',
        }
        program, *arguments = [str(places.get(part, part)) for part in self.task.get_command(SETTINGS)]
        return [str(SCRIPTS / program), *arguments]

    def start(self, name, **environment):
        """
        Start the pod *name*.
        """
        env = {key: value for key, value in os.environ.items() if key not in FOREIGN and not key.startswith("PET_")}
        log = open(self.folder / f"{name}.log", "wb")  # noqa: SIM115  # the pod's own
        self.pods[name] = subprocess.Popen(
            self.command(),
            env={
                **env,
                "PYTHONPATH": str(HERE),
                "FLYTE_INTERNAL_EXECUTION_ID": "f0",
                "FLYTE_INTERNAL_EXECUTION_PROJECT": "p",
                "FLYTE_INTERNAL_EXECUTION_DOMAIN": "d",
                "FLYTE_ATTEMPT_NUMBER": "0",
                "FLYTE_TEST_FOLDER": str(self.folder),
                **environment,
            },
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()

    def wait(self, *names, seconds=240.0):
        """
        Wait for these pods, or all; their exit codes.
        """
        limit = time.monotonic() + seconds
        waited = names or tuple(self.pods)
        try:
            codes = {name: self.pods[name].wait(max(0.1, limit - time.monotonic())) for name in waited}
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"{self.log()}\n{self.running()} have not ended in time") from error
        return codes[names[0]] if len(names) == 1 else codes

    def running(self):
        """
        The pods that have not ended.
        """
        return [name for name, pod in self.pods.items() if pod.poll() is None]

    def log(self, *names):
        """
        What the pods have written.
        """
        return "\n".join(f"[{name}] {(self.folder / f'{name}.log').read_text()}" for name in names or self.pods)

    def left(self):
        """
        The files that Flyte reads.
        """
        return sorted(path.name for path in self.outputs.iterdir()) if self.outputs.exists() else []

    def literals(self):
        """
        What outputs.pb holds, in Flyte's words.
        """
        return literals_pb2.LiteralMap.FromString((self.outputs / "outputs.pb").read_bytes())

    def value(self):
        """
        What outputs.pb holds.
        """
        context, interface = FlyteContextManager.current_context(), self.task.python_interface
        found = TypeEngine.literal_map_to_kwargs(context, LiteralMap.from_flyte_idl(self.literals()), interface.outputs)
        return found.get("o0")

    def metadata(self):
        """
        What is noted beside the value.
        """
        return self.literals().literals["o0"].metadata

    def error(self):
        """
        What error.pb holds.
        """
        return errors_pb2.ErrorDocument.FromString((self.outputs / "error.pb").read_bytes()).error


def tf_configs(**counts):
    """
    What the operator gives each replica of a TFJob: pod name -> TF_CONFIG.
    """
    cluster = {role: [f"job-{role}-{index}.ns.svc:2222" for index in range(count)] for role, count in counts.items()}
    return {
        f"{role}-{index}": json.dumps({"cluster": cluster, "task": {"type": role, "index": index}, "environment": "cloud"})
        for role, addresses in cluster.items()
        for index in range(len(addresses))
    }
