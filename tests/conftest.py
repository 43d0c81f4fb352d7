"""
What all tests share: hypothesis profiles, and a state folder of their own.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# On a busy machine a replica's start, or drawing a first job, takes as long as it takes: no deadlines.
settings.register_profile("dev", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "ci", deadline=None, max_examples=50, derandomize=True, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
# What has been looked at closely already.
settings.register_profile("quick", settings.get_profile("ci"), max_examples=15)
settings.register_profile("nightly", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


def pytest_configure() -> None:
    """
    Signals mean what they mean at a terminal, also under nohup or in the background of a script, where some are ignored.

    Programs that tests start inherit that, and what is ignored from the start stays ignored.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def _state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """
    The history of the tests' runs stays out of the user's.
    """
    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTRIB_STATE_DIR", str(folder))
        patch.delenv("DISTRIB_ENGINE", raising=False)
        yield folder
