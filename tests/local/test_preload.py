"""
What is imported once for all replicas, and what happens when that cannot be done.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from textwrap import dedent
from typing import Any

import attrs
import pytest
from watching import PATIENCE, eventually

import distrib
from distrib import ReplicaFailedError, Run, RunState
from distrib._registry import backends
from distrib.engines.local._plan import LocalPlan
from distrib.engines.local._preload import modules_to_preload

BACKEND = """
    from distrib.backend import Backend, Role

    class ToyBackend(Backend):
        name = "toy"
        roles = (Role("leader"), Role("member"))
        preload = ("toys", "toys.extra")

        def environment(self, replica, cluster):
            return {"TOY_RANK": str(replica.rank)}

        def fork_safe(self):
            import toys
            return toys.may_fork()
"""

#: Notes which process imports it, and how it finds the environment then.
FRAMEWORK = """
    import os, sys

    with open(os.environ["TOYS_LOG"], "a") as file:
        file.write(f"{os.getpid()} {os.environ.get('SETTING', '')}\\n")

    def may_fork():
        answer = os.environ.get("TOYS_FORK", "yes")
        if answer == "broken":
            raise RuntimeError("no idea")
        return answer == "yes"
"""

TRAINING = """
    import functools
    import os
    import helpers
    from helpers import build, constant
    from distrib import distributed

    def inside():
        import toys
        return os.getpid(), toys.__name__

    def inside_a_part():
        import toys.extra
        return os.getpid()

    def from_it():
        from toys import may_fork
        return os.getpid()

    def by_the_backend():
        from distrib.toy import group
        return group()

    def by_the_backends_module():
        from distrib import toy
        return toy.group()

    def through_a_helper():
        return build()

    def through_a_module():
        return helpers.build()

    def through_an_inner():
        def inner():
            import toys
        inner()
        return os.getpid()

    def nowhere():
        return os.getpid(), constant()

    def only_as_text():
        return os.getpid(), "toys", {"framework": "toys"}

    def outer():
        helper = build
        return lambda: helper()

    def decorated_plainly(function):
        @functools.wraps(function)
        def wrapper(*args):
            return function(*args)
        return wrapper

    wrapped = decorated_plainly(inside)
    cached = functools.lru_cache(inside)
    part = functools.partial(inside)
    task = distributed("toy", leader=1, member=2, local={"echo": False})(inside)

    class Trainer:
        def fit(self):
            import toys
            return os.getpid()

        def __call__(self):
            import toys
            return os.getpid()

        @classmethod
        def of_class(cls):
            import toys

        @staticmethod
        def static():
            import toys

    trainer = Trainer()
    method = trainer.fit
    part_of_method = functools.partial(trainer.fit)
    calls_object = lambda: trainer()
"""

HELPERS = """
    import os

    def build():
        return _deeper()

    def _deeper():
        import toys
        return os.getpid()

    def constant():
        return 1
"""

BY_MODULE = """
    import toys

    def train():
        return helper()

    def helper():
        return 1
"""

BY_CLASS = """
    from toys.extra import Layer

    def train():
        return 1
"""


@attrs.frozen
class Toys:
    """
    The fake framework, installed.
    """

    folder: Path
    log: Path
    patch: pytest.MonkeyPatch

    def write(self, name: str, text: str) -> None:
        """
        Make one more module, which is found even where other tests have imported one of that name.
        """
        self.patch.delitem(sys.modules, name, raising=False)
        (self.folder / f"{name}.py").write_text(dedent(text))

    def load(self, name: str, attribute: str) -> Callable[..., Any]:
        """
        A function of one of the modules.
        """
        found: Callable[..., Any] = getattr(import_module(name), attribute)
        return found

    def imports(self) -> list[int]:
        """
        The processes that have imported it, this one left out.
        """
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [int(line.split()[0]) for line in lines if int(line.split()[0]) != os.getpid()]


@pytest.fixture(name="toys")
def _toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """
    A package with a backend and its framework, which imports quickly and tells who imports it.
    """
    folder = tmp_path / "site"
    info = folder / "distrib_toy-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: distrib-toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[distrib.backends]\ntoy = distrib_toy:ToyBackend\n")
    (folder / "toys").mkdir()
    (folder / "toys" / "__init__.py").write_text(dedent(FRAMEWORK))
    (folder / "toys" / "extra.py").write_text("class Layer: pass\n")
    toys = Toys(folder, tmp_path / "imports.txt", monkeypatch)
    modules = {"distrib_toy": BACKEND, "training": TRAINING, "helpers": HELPERS, "by_module": BY_MODULE, "by_class": BY_CLASS}
    for name, text in modules.items():
        toys.write(name, text)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("TOYS_LOG", str(toys.log))
    yield toys
    for name in list(sys.modules):
        if str(folder) in repr(sys.modules[name]):
            del sys.modules[name]
    backends._objects.pop("toy", None)


def toy(function: Callable[..., Any], **keywords: Any) -> distrib.DistributedTask[..., Any]:
    """
    *function* on a leader and two members.
    """
    local = {"echo": False, "restart_delay": 0, **keywords.pop("local", {})}
    return distrib.distributed("toy", **{"leader": 1, "member": 2, **keywords}, local=local)(function)


def planned(function: Callable[..., Any], **keywords: Any) -> tuple[str, ...]:
    """
    What would be imported once.
    """
    plan = toy(function, **keywords).plan()
    assert isinstance(plan, LocalPlan)
    return plan.preload


def unforkable(run: Run[Any]) -> list[str]:
    """
    Why replicas could not be forked.
    """
    return [event.message for event in run.events() if event.kind == "unforkable"]


class TestWhich:
    @pytest.mark.parametrize(
        "name",
        [
            "inside",
            "from_it",
            "through_a_helper",
            "through_an_inner",
            "wrapped",
            "cached",
            "part",
            "method",
            "part_of_method",
            "calls_object",
            "trainer",
            "task",
        ],
    )
    def test_function_that_will_import_it(self, toys: Toys, name: str) -> None:
        """
        The framework is imported once if the function names it: in its own code, in a helper's, under whatever it is wrapped in.
        """
        function = toys.load("training", name)
        function = getattr(function, "function", function)
        assert planned(function)[:1] == ("toys",)
        assert toys.imports() == [], "planning imports nothing"

    def test_closure(self, toys: Toys) -> None:
        """
        So it is if a helper that the function has captured names it.
        """
        assert planned(toys.load("training", "outer")())[:1] == ("toys",)

    @pytest.mark.parametrize("name", ["of_class", "static"])
    def test_methods_of_a_class(self, toys: Toys, name: str) -> None:
        """
        Methods of classes are functions, too.
        """
        assert planned(getattr(toys.load("training", "Trainer"), name))[:1] == ("toys",)

    @pytest.mark.parametrize("module", ["by_module", "by_class"])
    def test_module_that_has_imported_it(self, toys: Toys, module: str) -> None:
        """
        And if the module of the function has imported it, or something of it.
        """
        assert planned(toys.load(module, "train"))[:1] == ("toys",)

    def test_all_that_are_named(self, toys: Toys) -> None:
        """
        Of the backend's modules only those are imported that are named.
        """
        toys.write("both", "def train():\n    import toys.extra\n")
        toys.write("extra_only", "def train():\n    from toys import extra\n")
        assert planned(toys.load("both", "train")) in (("toys",), ("toys", "toys.extra"))

    @pytest.mark.parametrize("name", ["by_the_backend", "by_the_backends_module"])
    def test_by_way_of_distrib(self, toys: Toys, name: str) -> None:
        """
        A function that names the framework only as ``distrib`` calls it has all modules of the backend imported once.
        """
        assert planned(toys.load("training", name)) == ("toys", "toys.extra")

    @pytest.mark.parametrize("name", ["nowhere", "only_as_text"])
    def test_function_that_will_not(self, toys: Toys, name: str) -> None:
        """
        A function whose code does not name it is not made to wait, though a text does, or another function of its module.
        """
        assert planned(toys.load("training", name)) == ()

    @pytest.mark.parametrize("function", [max, str.upper, int, [].append], ids=["max", "upper", "int", "append"])
    def test_built_in(self, function: Any) -> None:
        """
        Built-in functions and classes name nothing.
        """
        assert modules_to_preload(function, ("toys",), None, "toy") == ()

    def test_looking_changes_nothing(self, toys: Toys) -> None:
        """
        Values that come to life when they are looked at are left asleep: lazy modules, proxies, objects that answer to any name.
        """
        toys.write(
            "lazy",
            """
            import importlib.util, sys

            def sleeping(name):
                spec = importlib.util.find_spec(name)
                spec.loader = importlib.util.LazyLoader(spec.loader)
                module = importlib.util.module_from_spec(spec)
                sys.modules[name] = module
                spec.loader.exec_module(module)
                return module

            class Proxy:
                woken = []
                def __getattr__(self, name):
                    Proxy.woken.append(name)
                    raise RuntimeError("outside of a request")
                @property
                def __class__(self):
                    Proxy.woken.append("__class__")
                    raise RuntimeError("outside of a request")

            class Anything:
                def __getattr__(self, name):
                    return self

            toys = sleeping("toys")
            request = Proxy()
            anything = Anything()

            def train():
                return toys, request, anything, anything.toys
            """,
        )
        function = toys.load("lazy", "train")
        assert planned(function)[:1] == ("toys",)
        assert not toys.log.exists()
        assert sys.modules["lazy"].Proxy.woken == []

    def test_recursion(self, toys: Toys) -> None:
        """
        Functions that call each other, or wrap themselves, are looked at once.
        """
        toys.write(
            "circle",
            """
            def one(): return two()
            def two(): return one()
            one.__wrapped__ = two
            two.__wrapped__ = one
            """,
        )
        assert planned(toys.load("circle", "one")) == ()

    @pytest.mark.parametrize(
        ("wish", "modules"),
        [(True, ("toys", "toys.extra")), (False, ()), ("json", ("json",)), (["json", "toys"], ("json", "toys")), ((), ())],
    )
    def test_users_wish(self, toys: Toys, wish: Any, modules: tuple[str, ...]) -> None:
        """
        The user may say so: always, never, or which.
        """
        for name in ("inside", "nowhere"):
            assert planned(toys.load("training", name), local={"preload": wish}) == modules

    def test_not_where_all_start_afresh(self, toys: Toys) -> None:
        """
        Nothing is imported for replicas that start interpreters of their own.
        """
        function = toys.load("training", "inside")
        assert planned(function, local={"start_method": "spawn"}) == ()
        assert planned(function, leader={"env": {"A": "1"}}, member={"replicas": 2, "env": {"A": "2"}}) == ()
        assert planned(function, leader={"env": {"A": "1"}})[:1] == ("toys",)


class TestImporting:
    def test_once_for_all(self, toys: Toys) -> None:
        """
        One process imports it, and no replica does: they are forked from that one.
        """
        run = toy(toys.load("training", "inside")).submit()
        replicas = [pid for pid, _ in run.results(PATIENCE)]
        assert len(set(replicas)) == 3
        assert len(toys.imports()) == 1
        assert not set(toys.imports()) & set(replicas)
        assert [event.kind for event in run.events() if event.kind in ("importing", "imported")][:2] == ["importing", "imported"]

    def test_garbage_is_collected_less_often_only_meanwhile(self, toys: Toys) -> None:
        """
        While a module is imported the collector waits for more objects; in the replicas it is as ever, or as the module wants it.
        """
        toys.write("seen", "import gc\nat = gc.get_threshold()[0]")
        toys.write("wanted", "import gc\ngc.set_threshold(1234)")
        toys.write("looking", "import gc\ndef train():\n    import seen\n    return seen.at, gc.get_threshold()")
        train = toys.load("looking", "train")
        before = gc.get_threshold()
        for wish, threshold in ((("seen",), before), (("seen", "wanted"), (1234, *before[1:]))):
            assert toy(train, local={"preload": wish})() == (10_000, threshold)

    def test_restarts_are_forked_too(self, toys: Toys, meeting: Path) -> None:
        """
        A replica that is started again does not import it again.
        """
        toys.write(
            "losing",
            """
            import os
            def train(sign):
                import toys
                if os.environ["TOY_RANK"] == "1" and not os.path.exists(sign):
                    open(sign, "w").close()
                    os.kill(os.getpid(), 9)
            """,
        )
        policy = {"replicas": 3, "restart_policy": "ExitCode"}
        run = toy(toys.load("losing", "train"), leader=0, member=policy).submit(str(meeting / "lost"))
        run.result(PATIENCE)
        assert run.status().restarts == 1
        assert len(toys.imports()) == 1

    def test_what_it_started_stays(self, toys: Toys, meeting: Path) -> None:
        """
        A helper that was started while importing, for all replicas, is no leftover of one: it outlives a restart of them all.
        """
        toys.write(
            "helped",
            """
            import subprocess
            HELPER = subprocess.Popen(["sleep", "1000"], start_new_session=True).pid
            """,
        )
        toys.write(
            "losing",
            """
            import os
            def train(sign):
                import helped
                if not os.path.exists(sign):
                    open(sign, "w").close()
                    os.kill(os.getpid(), 9)
                return open(f"/proc/{helped.HELPER}/stat").read().rpartition(")")[2].split()[0]
            """,
        )
        given = {"member": {"restart_policy": "ExitCode"}, "run_policy": {"restart_scope": "Job"}, "local": {"preload": "helped"}}
        run = toy(toys.load("losing", "train"), leader=0, **given).submit(str(meeting / "lost"))
        assert run.result(PATIENCE) == "S"
        assert run.status().restarts == 1

    @pytest.mark.parametrize("local", [{"preload": False}, {"start_method": "spawn"}])
    def test_by_each(self, toys: Toys, local: dict[str, Any]) -> None:
        """
        Without it, each replica imports for itself.
        """
        run = toy(toys.load("training", "inside"), local=local).submit()
        replicas = [pid for pid, _ in run.results(PATIENCE)]
        assert sorted(toys.imports()) == sorted(replicas)

    def test_after_the_jobs_variables(self, toys: Toys) -> None:
        """
        The job's variables are set before: what is read while importing arrives.
        """
        toy(toys.load("training", "inside"), env={"SETTING": "early"}).submit().result(PATIENCE)
        assert toys.log.read_text().split()[1:] == ["early"]

    def test_groups_with_their_own_variables_import_for_themselves(self, toys: Toys) -> None:
        """
        A group's own variables are there when its replicas import; the others are forked all the same.
        """
        run = toy(toys.load("training", "inside"), env={"SETTING": "all"}, leader={"env": {"SETTING": "mine"}}).submit()
        (leader, _), *members = run.results(PATIENCE)
        lines = dict(line.split() for line in toys.log.read_text().splitlines())
        assert sorted(lines.values()) == ["all", "mine"]
        assert lines[str(leader)] == "mine"
        assert not {str(pid) for pid, _ in members} & lines.keys()

    def test_nobody_waits_for_what_is_not_theirs(self, toys: Toys, meeting: Path) -> None:
        """
        A replica with an interpreter of its own starts at once, however long the import for the others takes.
        """
        toys.write("long", f"import os, time\nwhile not os.path.exists({str(meeting / 'leader')!r}): time.sleep(0.01)\n")
        toys.write(
            "signing",
            f"""
            import os
            def train():
                if os.environ["TOY_RANK"] == "0":
                    open({str(meeting / "leader")!r}, "w").close()
            """,
        )
        run = toy(toys.load("signing", "train"), leader={"env": {"A": "1"}}, local={"preload": "long"}).submit()
        assert len(run.results(PATIENCE)) == 3

    def test_the_programs_arguments_are_there(self, toys: Toys) -> None:
        """
        What reads ``sys.argv`` while it is imported finds the program's.
        """
        toys.write("curious", "import sys\nSEEN = list(sys.argv)\n")
        toys.write("asking", "def train():\n    import curious\n    return curious.SEEN\n")
        assert toy(toys.load("asking", "train"), local={"preload": "curious"}).submit().result(PATIENCE) == sys.argv

    def test_there_is_nothing_to_read(self, toys: Toys) -> None:
        """
        What reads the standard input while it is imported finds its end, and takes nobody's orders.
        """
        toys.write("asking_at_import", "import os, sys\nSEEN = os.read(0, 100) + sys.stdin.read().encode()\n")
        toys.write("asking", "def train():\n    import asking_at_import\n    return asking_at_import.SEEN\n")
        run = toy(toys.load("asking", "train"), local={"preload": "asking_at_import"}).submit()
        assert run.result(PATIENCE) == b""
        assert unforkable(run) == []

    def test_what_it_prints_is_kept(self, toys: Toys, capfd: pytest.CaptureFixture[str]) -> None:
        """
        What is printed while it is imported is in the supervisor's log, not on the terminal.
        """
        toys.write("chatty", "import sys\nprint('hello', flush=True)\nprint('there', file=sys.stderr)\n")
        run = toy(toys.load("training", "nowhere"), local={"preload": "chatty"}).submit()
        run.result(PATIENCE)
        log = Path(run.folder, "logs", "supervisor.log").read_text()  # type: ignore[attr-defined]
        assert log.split() == ["hello", "there"]
        assert capfd.readouterr() == ("", "")


class TestFallingBack:
    """
    A wrong guess may cost time, never correctness.
    """

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("raise ImportError('no such library')", "ImportError: no such library"),
            ("1 / 0", "ZeroDivisionError"),
            ("import sys; sys.exit(5)", "SystemExit: 5"),
            ("raise KeyboardInterrupt", "KeyboardInterrupt"),
            ("import os; os._exit(3)", "ended with code 3"),
            ("import os; os._exit(0)", "ended with code 0"),
            ("import os; os.kill(os.getpid(), 11)", "got signal 11"),
            ("x = (", "SyntaxError"),
        ],
    )
    def test_module_that_cannot_be_imported(self, toys: Toys, text: str, told: str) -> None:
        """
        Whatever goes wrong while it is imported is told, and the replicas run all the same.
        """
        toys.write("broken", text)
        run = toy(toys.load("training", "nowhere"), local={"preload": "broken"}).submit()
        assert len(run.results(PATIENCE)) == 3
        (message,) = unforkable(run)
        assert told in message

    def test_error_is_the_replicas(self, toys: Toys) -> None:
        """
        A replica that needs the module meets the error itself, and reports it with its own frames.
        """
        toys.write("broken", "raise ImportError('no such library')")
        toys.write("needing", "def train():\n    import broken\n")
        error = toy(toys.load("needing", "train"), local={"preload": "broken"}).submit().exception(PATIENCE)
        assert isinstance(error, ReplicaFailedError)
        assert isinstance(error.__cause__, ImportError)
        assert "in train: import broken" in str(error)

    @pytest.mark.parametrize(("answer", "told"), [("no", "runtime is up already"), ("broken", "RuntimeError: no idea")])
    def test_unsafe_to_fork(self, toys: Toys, answer: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        Where the backend says that forking is not safe, or cannot say, each replica starts an interpreter of its own.
        """
        monkeypatch.setenv("TOYS_FORK", answer)
        run = toy(toys.load("training", "inside")).submit()
        replicas = {pid for pid, _ in run.results(PATIENCE)}
        assert replicas < set(toys.imports())
        assert told in unforkable(run)[0]

    def test_importer_is_killed_while_importing(self, toys: Toys, meeting: Path) -> None:
        """
        When the process that imports is killed, replicas import for themselves.
        """
        toys.write(
            "slow",
            f"""
            import os, time
            with open({str(meeting / "hidden")!r}, "x") as file:
                file.write(str(os.getpid()))
            os.rename({str(meeting / "hidden")!r}, {str(meeting / "importer")!r})
            time.sleep(1000)
            """,
        )
        run = toy(toys.load("training", "nowhere"), local={"preload": "slow"}).submit()
        eventually((meeting / "importer").exists, "the import to begin")
        os.kill(int((meeting / "importer").read_text()), signal.SIGKILL)
        assert len(run.results(PATIENCE)) == 3
        assert "got signal 9" in unforkable(run)[0]

    def test_importer_is_killed_later(self, toys: Toys, meeting: Path) -> None:
        """
        When it is killed while the replicas run, these go on, and one that has to be started again starts afresh.
        """
        toys.write(
            "waiting",
            """
            import os, time
            from pathlib import Path
            def train(folder):
                import toys
                rank, folder = os.environ["TOY_RANK"], Path(folder)
                again = (folder / f"started-{rank}").exists()
                (folder / f"started-{rank}").touch()
                while not (folder / "go").exists():
                    time.sleep(0.01)
                if rank == "1" and not again:
                    os.kill(os.getpid(), 9)
                return os.getpid()
            """,
        )
        policy = {"replicas": 3, "restart_policy": "ExitCode"}
        run = toy(toys.load("waiting", "train"), leader=0, member=policy).submit(str(meeting))
        eventually(lambda: all((meeting / f"started-{rank}").exists() for rank in range(3)), "all to start")
        (importer,) = toys.imports()
        os.kill(importer, signal.SIGKILL)
        eventually(lambda: unforkable(run), "the loss to be noticed")
        (meeting / "go").touch()
        first, lost, other = run.results(PATIENCE)
        assert run.status().restarts == 1
        assert set(toys.imports()) == {importer, lost}
        assert first != other

    def test_nothing_is_left_of_a_cancelled_import(self, toys: Toys) -> None:
        """
        A run that is cancelled while it imports ends at once, its replicas never started.
        """
        toys.write("never_done", "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(1000)\n")
        run = toy(toys.load("training", "nowhere"), local={"preload": "never_done", "grace_period": 600}).submit()
        eventually(lambda: [event for event in run.events() if event.kind == "importing"], "the import to begin")
        run.cancel()
        assert {status.state for status in run.status().replicas.values()} == {"Stopped"}
        assert {status.attempt for status in run.status().replicas.values()} == {0}

    def test_no_room_for_a_replica(self, toys: Toys) -> None:
        """
        When there is no room for another process, the replica that was to be forked fails, and the run with it.
        """
        if os.geteuid() != 0:
            pytest.skip("how many processes there may be is limited for each user; another user is needed, and only root can be one")
        toys.write(
            "crowded",
            """
            import os, resource

            def leave_room_for_one():  # the process between the importer and a replica
                os.setuid(54_321)
                resource.setrlimit(resource.RLIMIT_NPROC, (2, 2))

            os.register_at_fork(before=leave_room_for_one)
            """,
        )
        error = toy(toys.load("training", "nowhere"), local={"preload": "crowded"}).submit().exception(PATIENCE)
        assert isinstance(error, ReplicaFailedError)
        assert "the process could not be started: [Errno 11] Resource temporarily unavailable" in str(error)

    def test_importer_is_stopped(self, toys: Toys, meeting: Path) -> None:
        """
        When it is stopped, so that it forks nobody any more, the run can be cancelled all the same.
        """
        toys.write(
            "stopping",
            f"""
            import os
            from pathlib import Path

            def stop():
                Path({str(meeting / "stopping")!r}).touch()
                os.kill(os.getpid(), {int(signal.SIGSTOP)})

            os.register_at_fork(before=stop)
            """,
        )
        run = toy(toys.load("training", "nowhere"), local={"preload": "stopping", "grace_period": 0.1}).submit()
        eventually((meeting / "stopping").exists, "a fork to begin")
        run.cancel()
        assert run.status().state is RunState.CANCELLED
