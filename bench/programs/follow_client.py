"""
Read the logs of many pods as the official client does it, a thread for each: prints the cores that took, and the lines that came.
"""

import json
import sys
import threading
import time

from kubernetes import client, config

config.load_kube_config(f"{sys.argv[1]}/config")
count = int(sys.argv[2])
jobs, core = client.BatchV1Api(), client.CoreV1Api()
core.api_client.configuration.connection_pool_maxsize = count
core = client.CoreV1Api(client.ApiClient(core.api_client.configuration))
jobs.create_namespaced_job("here", {"metadata": {"name": "talk", "labels": {"distrib.dev/run": "talk"}}})
# As it arrives: these pods lack most of what the client's models ask for.
while len(pods := json.loads(core.list_namespaced_pod("here", _preload_content=False).data)["items"]) < count:
    time.sleep(0.1)
lines: list[str] = []
started: list[tuple[float, float]] = []


def follow(name: str) -> None:
    """
    Read one pod's log until it ends.
    """
    answer = core.read_namespaced_pod_log(name, "here", container="node", follow=True, timestamps=True, _preload_content=False)
    for line in answer:
        if not started:
            started.append((time.perf_counter(), time.process_time()))
        lines.append(f"{name}: {line.decode()}")


threads = [threading.Thread(target=follow, args=(pod["metadata"]["name"],)) for pod in pods]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
((began, used), *_) = started
print(f"{(time.process_time() - used) / (time.perf_counter() - began):.3f} {len(lines)}")
