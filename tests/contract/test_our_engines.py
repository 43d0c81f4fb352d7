"""
Our own engines keep what every engine promises.
"""

from distrib._registry import engine_names
from distrib.testing import EngineContract

#: What makes their runs short and silent.
OPTIONS = {"local": {"echo": False, "restart_delay": 0, "grace_period": 5}}

for name in engine_names():
    own = {"engine": name, "options": OPTIONS.get(name, {}), "__doc__": f"What every engine promises, of {name}."}
    globals()[f"Test{name.title()}"] = type(f"Test{name.title()}", (EngineContract,), own)
