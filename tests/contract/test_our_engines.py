"""
Our own engines keep what every engine promises.
"""

from distrib._registry import engine_names
from distrib.testing import EngineContract

#: What makes their runs short and silent.
OPTIONS = {"local": {"echo": False, "restart_delay": 0, "grace_period": 5}}

#: With which frameworks they run jobs, if not with any.
JOBS = {"flyte": {"framework": "tensorflow", "lead": "chief", "service": "ps"}}

#: On a cluster: tests/cluster/test_contract.py.
ELSEWHERE = {"kubernetes"}

for name in sorted(set(engine_names()) - ELSEWHERE):
    own = {"engine": name, "options": OPTIONS.get(name, {}), **JOBS.get(name, {}), "__doc__": f"What every engine promises, of {name}."}
    globals()[f"Test{name.title()}"] = type(f"Test{name.title()}", (EngineContract,), own)
