"""
Follow a run of many replicas on the cluster that FOLDER/config leads to: prints the cores that took, and the lines that came.
"""

import sys
import time

from distrib import distributed


@distributed(framework="tensorflow", worker=int(sys.argv[2]))
def talk() -> None:
    """
    Never called: the cluster only says that it is.
    """


if __name__ == "__main__":
    there = {"namespace": "here", "kubeconfig": f"{sys.argv[1]}/config", "image": "train:1", "workload": "job", "echo": False}
    run = talk.on("kubernetes", **there).submit()
    lines, began, used = 0, 0.0, 0.0
    for lines, _ in enumerate(run.logs(follow=True), 1):
        if lines == 1:
            began, used = time.perf_counter(), time.process_time()
    print(f"{(time.process_time() - used) / (time.perf_counter() - began):.3f} {lines}")
    run.result()
