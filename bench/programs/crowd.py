"""
Many replicas that do nothing: ``crowd.py 100`` for the time, ``crowd.py 100 10`` also for their memory, read by all at the same
moment, 10 s after the call.
"""

import re
import sys
import time
from pathlib import Path

from distrib import distributed


@distributed(framework="tensorflow", worker=2)
def crowd(moment: float) -> int:
    """
    The replica's proportional memory, in kilobytes, at *moment*.
    """
    if not moment:
        return 0
    time.sleep(max(0, moment - time.time()))
    text = Path("/proc/self/smaps_rollup").read_text()
    # The others are still reading: their shares must not become ours.
    time.sleep(3)
    return int(re.findall(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)[0])


if __name__ == "__main__":
    count, after = int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0
    start = time.perf_counter()
    run = crowd.options(worker=count).submit(time.time() + after if after else 0)
    kilobytes = list(run.results()["worker"])
    print(time.perf_counter() - start, sum(kilobytes) / len(kilobytes) / 1024, max(kilobytes) / 1024)
