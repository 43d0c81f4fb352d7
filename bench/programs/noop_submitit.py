"""
Two tasks that do nothing, with submitit's local executor.
"""

import tempfile

import submitit


def noop(value: int) -> int:
    """
    Give back what came.
    """
    return value


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        executor = submitit.LocalExecutor(folder)
        executor.update_parameters(tasks_per_node=2, timeout_min=5)
        print(executor.submit(noop, 1).results())
