"""
A million lines of log from four replicas.
"""

from distrib import distributed


@distributed(framework="tensorflow", worker=4)
def talk(lines: int) -> None:
    """
    Print *lines* lines.
    """
    for number in range(lines):
        print("step", number, "loss 0.1234 accuracy 0.9876")


if __name__ == "__main__":
    talk(250_000)
