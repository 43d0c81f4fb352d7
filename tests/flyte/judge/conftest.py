"""
What Flyte's own back end makes of tasks; only where its program is there, which ``nox -s judge`` builds.
"""

import os
from pathlib import Path

import pytest
from judging import Judge

#: Names the program.
PROGRAM = "DISTRIB_FLYTE_JUDGE"


@pytest.fixture(scope="session", name="judge")
def _judge() -> Judge:
    """
    The judge of this session.
    """
    program = os.environ.get(PROGRAM)
    if not program or not Path(program).is_file():
        pytest.skip(f"{PROGRAM} names no program; `nox -s judge` builds it, where there is Go")
    return Judge(Path(program))
