"""
Two replicas that do nothing, with distrib.
"""

from distrib import distributed


@distributed(framework="tensorflow", worker=2)
def noop(value: int) -> int:
    """
    Give back what came.
    """
    return value


if __name__ == "__main__":
    print(noop(1))
