"""
A function that another module makes a task of.
"""


def plainly(x: int) -> int:
    """
    No task here.
    """
    return x * 10
