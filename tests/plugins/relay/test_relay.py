"""
What every engine promises, of somebody else's.
"""

from distrib.testing import EngineContract


class TestRelay(EngineContract):
    """
    The relay keeps it.
    """

    engine = "relay"
    options = {"grace_period": 5}
