"""
flytekit in the process of the tests: what it changes there when it is imported is changed back.
"""

import os
import signal
import sys

import pytest

# Its tracebacks are for people; tests read them.
os.environ.setdefault("FLYTE_SDK_RICH_TRACEBACKS", "0")
_handler, _hook = signal.getsignal(signal.SIGINT), sys.excepthook
try:
    import flytekit  # noqa: F401
finally:
    signal.signal(signal.SIGINT, _handler)
    sys.excepthook = _hook


@pytest.fixture(autouse=True)
def _no_word_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Nothing of a cluster's is in the environment of the tests.
    """
    for name in ("TF_CONFIG", "FLYTE_INTERNAL_EXECUTION_ID", "FLYTECTL_CONFIG"):
        monkeypatch.delenv(name, raising=False)
