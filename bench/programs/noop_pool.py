"""
Two processes that do nothing, with the standard library.
"""

import multiprocessing


def noop(value: int) -> int:
    """
    Give back what came.
    """
    return value


if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        print(pool.map(noop, [1, 2]))
