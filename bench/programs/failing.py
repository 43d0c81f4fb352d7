"""
Seconds from the moment at which one of two replicas raises until the caller has the error; the other one sleeps.
"""

import time

from distrib import ReplicaFailedError, distributed, replica


class TooBadError(Exception):
    """
    Carries the moment at which it was raised.
    """


@distributed(framework="tensorflow", worker=2)
def failing() -> None:
    """
    Raise in one replica, sleep in the other.
    """
    if replica().index == 1:
        # Both are up and busy by then.
        time.sleep(1)
        raise TooBadError(time.monotonic())
    time.sleep(600)


if __name__ == "__main__":
    try:
        failing()
    except ReplicaFailedError as error:
        cause = error.__cause__
        assert isinstance(cause, TooBadError)
        print(time.monotonic() - cause.args[0])
