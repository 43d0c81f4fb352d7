"""
A cluster for whoever follows logs: ``follow_cluster.py FOLDER PODS LINES SECONDS``.

It stands in for a real one as in the tests: once a Job is there it has its pods run, each of which writes LINES a second, and return.
Leaves FOLDER/config for whoever connects, and ends when it is told to.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "kubernetes"))

from scenes import Pod, returned
from stage import JOBS, PODS
from standin import StandIn, eventually

folder, count, rate, seconds = Path(sys.argv[1]), *map(int, sys.argv[2:])
standin = StandIn()
standin.kubeconfig(folder / "starting")
# Whole at once for whoever waits for it.
(folder / "starting").rename(folder / "config")
(job,) = eventually(lambda: [data for (where, _), data in list(standin.objects.items()) if where == JOBS], 60)
pods = [Pod(f"worker-{index}", uid=str(index), run=job["metadata"]["labels"]["distrib.dev/run"]) for index in range(count)]
names = [pod.data["metadata"]["name"] for pod in pods]
for pod in pods:
    pod.data["metadata"]["ownerReferences"] = [{"uid": job["metadata"]["uid"]}]
    standin.put(PODS, pod.running())
# All are followed from the first line on.
eventually(lambda: standin.asked()["log", "pods/log"] >= count, 60)
for second in range(seconds):
    began = time.monotonic()
    for name in names:
        standin.write(name, *(b"step %d of %d" % (second * rate + line, seconds * rate) for line in range(rate)))
    time.sleep(max(0.0, began + 1 - time.monotonic()))
for index, pod in reversed(list(enumerate(pods))):
    standin.finish(names[index])
    standin.put(PODS, pod.ended(0, returned(f"worker-{index}", index)))
sys.stdin.read()
