"""
Two replicas that do nothing, with TorchX's local scheduler. It has no way to bring a value back.
"""

import sys
from pathlib import Path

from torchx.runner import get_runner
from torchx.specs import AppDef, Role

if __name__ == "__main__":
    nothing = str(Path(sys.argv[0]).with_name("nothing.py"))
    role = Role(name="worker", image=str(Path.cwd()), entrypoint=sys.executable, args=[nothing], num_replicas=2)
    with get_runner() as runner:
        handle = runner.run(AppDef(name="noop", roles=[role]), scheduler="local_cwd")
        # The default looks once in 10 s.
        status = runner.wait(handle, wait_interval=0.01)
        print(status)
