"""
What the engine asks of the system.
"""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from distrib._linux import is_linux, kill_and_wait

pytestmark = pytest.mark.skipif(not is_linux(), reason="these are Linux's")


class TestKillAndWait:
    def test_they_are_gone(self) -> None:
        """
        When it returns, the processes have ended, those that nobody has waited for yet included.
        """
        with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"]) as sleeper:
            kill_and_wait([sleeper.pid], 60)
            assert sleeper.poll() == -signal.SIGKILL

    def test_what_may_not_be_killed_is_not_waited_for(self) -> None:
        """
        A process of another user stays, and there is no point in waiting for it.
        """
        program = """if True:
            import os
            from distrib._linux import kill_and_wait
            os.geteuid() or os.setuid(65534)
            kill_and_wait([1], 1e5)
        """
        subprocess.run([sys.executable, "-c", program], check=True, timeout=100)
