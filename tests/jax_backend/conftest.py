"""
What all tests of JAX share.
"""

from __future__ import annotations

from importlib.util import find_spec

#: Without JAX there is nothing to test here.
collect_ignore_glob = [] if find_spec("jaxlib") else ["test_*.py"]
