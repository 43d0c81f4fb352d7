"""
What all tests of PyTorch share.
"""

from __future__ import annotations

from importlib.util import find_spec

#: Without PyTorch there is nothing to test here.
collect_ignore_glob = [] if find_spec("torch") else ["test_*.py"]
