"""
Our own engines keep what every engine promises.
"""

from distrib._registry import engine_names
from distrib.testing import EngineContract

#: What makes their runs short and silent.
OPTIONS = {"local": {"echo": False, "restart_delay": 0, "grace_period": 5}}

#: What else there is to say of them: Flyte knows some frameworks only, and starts its tasks itself.
OWN = {"flyte": {"framework": "tensorflow", "lead": "chief", "service": "ps", "starts_runs": False}}

#: On a cluster: tests/cluster/test_contract.py.
ELSEWHERE = {"kubernetes"}

for name in sorted(set(engine_names()) - ELSEWHERE):
    own = {"engine": name, "options": OPTIONS.get(name, {}), **OWN.get(name, {}), "__doc__": f"What every engine promises, of {name}."}
    globals()[f"Test{name.title()}"] = type(f"Test{name.title()}", (EngineContract,), own)
