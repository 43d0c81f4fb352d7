"""
Which functions, arguments and results can be used, from wherever they are called.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import math
import random
import subprocess
import sys
import textwrap
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import fates
import numpy as np
import pytest
from watching import PATIENCE, QUIET, Launcher, eventually, task

import distrib
from distrib import InvalidJobError, ReplicaFailedError, RunState, SubmitError


class TestFunctions:
    def test_of_a_module(self) -> None:
        """
        A function of a module returns the coordinator's value.
        """
        assert task(fates.add)(1, b=2) == 3

    def test_every_replica_runs_it(self) -> None:
        """
        Each replica calls the function, and its value is kept.
        """
        results = task(fates.name, worker=3).submit().results()
        assert dict(results.items()) == {f"worker-{index}": f"worker-{index}" for index in range(3)}
        assert list(results) == ["worker-0", "worker-1", "worker-2"]
        assert len(results) == 3
        assert results["worker"][1] == "worker-1"
        assert results["worker"][-2:] == ["worker-1", "worker-2"]
        assert results.value == "worker-0"

    def test_roles_without_replicas_are_named(self) -> None:
        """
        Asking for a role that the run does not have names those that it has.
        """
        with pytest.raises(LookupError, match=r"'wroker'.*Did you mean 'worker'"):
            task(fates.name).submit().results()["wroker"]

    def test_closure_and_lambda(self) -> None:
        """
        Closures and lambdas work, with what they have captured.
        """
        captured = [1, 2, 3]

        def total(more: int) -> int:
            return sum(captured) + more

        assert task(total)(4) == 10
        assert task(lambda value: value * len(captured))(5) == 15

    def test_bound_method(self) -> None:
        """
        A bound method runs with its object, and its module's globals need not be picklable.
        """
        assert task(fates.Scale(3.0).times)(2.0) == 6.0

    def test_bound_method_of_a_local_class(self) -> None:
        """
        So does a method of a class that no module has.
        """

        class Local:
            def __init__(self) -> None:
                self.seen = 5

            def look(self) -> int:
                return self.seen

        assert task(Local().look)() == 5

    def test_decorated_method(self) -> None:
        """
        A method decorated in its class is called as a method.
        """
        assert fates.Scale(4.0).decorated(2.0) == 8.0
        assert fates.Scale.decorated(fates.Scale(5.0), 2.0) == 10.0
        assert fates.Scale.static(2.0) == 4.0
        assert fates.Scale(1.0).decorated.submit(3.0).result() == 3.0

    @pytest.mark.parametrize(
        ("function", "args", "value"),
        [
            (functools.partial(fates.add, b=5), (1,), 6),
            (fates.Scale(2.0), (4.0,), 8.0),
            (fates.Scale.of_class, (1.0,), ("Scale", 1.0)),
            (math.sqrt, (9.0,), 3.0),
            (max, (1, 2), 2),
            (str.upper, ("a",), "A"),
        ],
        ids=["partial", "callable object", "class method", "built-in", "built-in without signature", "built-in method"],
    )
    def test_any_callable(self, function: Any, args: tuple[Any, ...], value: Any) -> None:
        """
        Whatever can be called and pickled can be run.
        """
        decorated = task(function)
        assert "distributed tensorflow" in repr(decorated)
        assert decorated(*args) == value

    def test_refers_to_its_own_task(self) -> None:
        """
        A function may refer to the task that it became.
        """

        def recursive(depth: int) -> int:
            return 0 if depth == 0 else 1 + decorated.function(depth - 1)

        decorated = task(recursive)
        assert decorated(3) == 3

    def test_of_a_module_made_by_hand(self) -> None:
        """
        A function of a module that no other process can import travels itself, and so does what it uses of the module.
        """
        module = types.ModuleType("made_by_hand")
        exec("class Box:\n    def __init__(self, value): self.value = value\ndef box(value): return Box(helper(value))", module.__dict__)
        exec("def helper(value): return value + 1", module.__dict__)
        sys.modules["made_by_hand"] = module
        try:
            result = task(module.box)(1)
            assert type(result) is module.Box
            assert result.value == 2
        finally:
            del sys.modules["made_by_hand"]

    def test_of_a_file_that_is_on_no_path(self, tmp_path: Path) -> None:
        """
        The same holds for a module that was loaded from a path.
        """
        file = tmp_path / "off_the_path.py"
        file.write_text("OFFSET = 10\ndef shift(value): return value + OFFSET\n")
        spec = importlib.util.spec_from_file_location("off_the_path", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["off_the_path"] = module
        try:
            spec.loader.exec_module(module)
            assert task(module.shift)(1) == 11
        finally:
            del sys.modules["off_the_path"]

    def test_pickled_by_value_at_the_users_wish(self) -> None:
        """
        What cloudpickle was told about a module is respected: replicas then do not read the module's file.
        """
        cloudpickle.register_pickle_by_value(fates)
        try:
            assert task(lambda: "fates" in sys.modules)() is False
            function = fates.add
            original, function.__defaults__ = function.__defaults__, (41,)
            try:
                assert task(function)(1) == 42
            finally:
                function.__defaults__ = original
        finally:
            cloudpickle.unregister_pickle_by_value(fates)

    @pytest.mark.parametrize("start_method", ["fork", "spawn"])
    def test_start_methods_agree(self, start_method: str) -> None:
        """
        A forked replica and a fresh one answer the same.
        """
        assert task(fates.add, local={**QUIET, "start_method": start_method})(1, 2) == 3

    @pytest.mark.parametrize("preload", [("json",), ("no_such_module_anywhere",)])
    def test_preloading(self, preload: tuple[str, ...]) -> None:
        """
        Modules are imported once where they can be; one that cannot be imported is left to the replicas.
        """
        run = task(fates.add, local={**QUIET, "preload": preload}).submit(1)
        assert run.result() == 2
        assert ("unforkable" in [event.kind for event in run.events()]) == (preload != ("json",))

    @pytest.mark.parametrize("local", [{}, {"preload": ("numpy",)}, {"start_method": "spawn"}])
    def test_random_numbers_differ(self, local: dict[str, Any]) -> None:
        """
        However replicas are started, each draws random numbers of its own.
        """

        def draw() -> tuple[float, float]:
            return random.random(), float(np.random.random())  # noqa: NPY002  # the shared generators are the question

        first, second = task(draw, local={**QUIET, **local}).submit().results()
        assert first[0] != second[0]
        assert first[1] != second[1]


class TestMain:
    def test_script(self, launcher: Launcher) -> None:
        """
        Functions and classes of ``__main__`` work without a guard, and values come back as instances of the same class.
        """
        done = launcher.run("""
            import dataclasses, enum

            @dataclasses.dataclass
            class Point:
                x: int

            class Colour(enum.Enum):
                RED = 1

            def helper(point):
                return Point(point.x + OFFSET)

            OFFSET = 10

            @distributed("tensorflow", worker=2, local=QUIET)
            def move(point, colour):
                assert colour is Colour.RED
                return helper(point), colour, sys.argv[1:]

            point, colour, argv = move(Point(1), Colour.RED)
            assert type(point) is Point and point == Point(11)
            assert colour is Colour.RED
            assert argv == sys.argv[1:]
            print("fine")
        """)
        assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")

    def test_module_of_a_package(self, launcher: Launcher, tmp_path: Path) -> None:
        """
        ``python -m package.module`` works, with relative imports in the function.
        """
        package = tmp_path / "package"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "numbers.py").write_text("SEVEN = 7\n")
        text = """
            from distrib import distributed
            @distributed("tensorflow", worker=2, local={"echo": False})
            def number():
                from .numbers import SEVEN
                return SEVEN
            print(number())
        """
        (package / "program.py").write_text(textwrap.dedent(text))
        done = subprocess.run(
            [sys.executable, "-m", "package.program"], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert (done.stdout, done.stderr) == ("7\n", "")

    @pytest.mark.parametrize("how", ["-c", "-"])
    def test_without_a_file(self, how: str) -> None:
        """
        A program that is in no file works: ``python -c``, or read from the standard input.
        """
        text = "from distrib import distributed\n@distributed('tensorflow', worker=2, local={'echo': False})\ndef f(): return 5\nprint(f())"
        arguments = ["-c", text] if how == "-c" else ["-"]
        given = None if how == "-c" else text
        done = subprocess.run([sys.executable, *arguments], input=given, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert (done.stdout, done.stderr) == ("5\n", "")

    def test_exception_of_the_program(self, launcher: Launcher) -> None:
        """
        An exception class of ``__main__`` comes back as the cause, an instance of the same class.
        """
        done = launcher.run("""
            class TooSmall(Exception):
                def __init__(self, *, size):
                    super().__init__(f"too small: {size}")
                    self.size = size
                def __reduce__(self):
                    return (_again, (self.size,))

            def _again(size):
                return TooSmall(size=size)

            @distributed("tensorflow", worker=2, local=QUIET)
            def check(size):
                raise TooSmall(size=size)

            try:
                check(3)
            except distrib.ReplicaFailedError as error:
                assert type(error.__cause__) is TooSmall, error.__cause__
                assert error.__cause__.size == 3
                print("fine")
        """)
        assert (done.stdout, done.stderr) == ("fine\n", "")

    def test_interpreter_switches(self, tmp_path: Path) -> None:
        """
        The interpreter's switches go on to the replicas, and odd entries of ``sys.path`` do no harm.
        """
        text = """
            import pathlib, sys
            sys.path += [pathlib.Path("/nowhere"), None]
            from distrib import distributed
            @distributed('tensorflow', worker=2, local={'echo': False})
            def f(): return sys.flags.isolated, sys.flags.dev_mode, sys.flags.utf8_mode
            print(f(), f.on("local", start_method="spawn")())
        """
        command = [sys.executable, "-I", "-X", "utf8", "-X", "dev", "-W", "ignore", "-c"]
        path = f"import sys; sys.path[:] = {[entry for entry in sys.path if entry]!r}\n"
        done = subprocess.run([*command, path + textwrap.dedent(text)], capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert (done.stdout, done.stderr) == ("(1, True, 1) (1, True, 1)\n", "")


class TestArguments:
    @pytest.mark.parametrize(
        "value",
        [
            {"a": {1, 2}, "b": (None, 1.5, 2j), "c": b"\0" * 10},
            Path("/x"),
            range(3),
            float("inf"),
            [0] * 20_000,
            "\ud800 lone",
            fates.Scale,
            fates.add,
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_go_there_and_come_back(self, value: Any) -> None:
        """
        Values of any picklable kind arrive, and return, equal.
        """
        assert task(fates.echo)(value, key=value) == ((value,), {"key": value})

    def test_functions_as_values(self) -> None:
        """
        Lambdas are fine as arguments and as results.
        """
        assert task(lambda function: lambda: function(20) + 1)(lambda value: 2 * value)() == 41

    def test_functions_keep_their_file(self) -> None:
        """
        A function that a replica returns, or raises with its exception, still tells the file of its code: so tracebacks have its lines.
        """

        def train(fail: bool) -> Callable[[], object]:
            error = ValueError()
            error.why = lambda: fail  # type: ignore[attr-defined]
            if fail:
                raise error
            return lambda: fail

        returned = task(train, worker=1)(fail=False)
        failure = task(train, worker=1).submit(fail=True).exception(PATIENCE)
        assert failure is not None
        for function in (returned, failure.__cause__.why):  # type: ignore[union-attr]
            assert function.__code__.co_filename == __file__

    @pytest.mark.parametrize("start_method", ["fork", "spawn"])
    def test_arrays(self, start_method: str) -> None:
        """
        Each replica has its own, writable arrays; those of the caller stay as they are. Many of them are fine.
        """

        def change(arrays: list[Any], fortran: Any, empty: Any) -> tuple[Any, bool, int]:
            for array in arrays:
                array[:] += distrib.replica().rank + 1
            return arrays[4999], fortran.flags.f_contiguous, empty.size

        arrays = [np.full(20, index) for index in range(5000)]
        fortran = np.asfortranarray(np.arange(6.0).reshape(2, 3))
        run = task(change, local={**QUIET, "start_method": start_method}).submit(arrays, fortran, np.empty((0, 3)))
        for rank, (array, order, size) in enumerate(run.results()):
            assert array.tolist() == [4999 + rank + 1] * 20
            assert order
            assert size == 0
        assert arrays[4999].tolist() == [4999] * 20

    def test_bytes_of_a_hundred_megabytes(self) -> None:
        """
        Large values that are no arrays arrive as well.
        """
        data = b"x" * 100_000_000
        assert task(len)(data) == len(data)

    @pytest.mark.tensorflow
    @pytest.mark.slow
    def test_tensors(self, launcher: Launcher) -> None:
        """
        TensorFlow's tensors are fine as arguments and as results.
        """
        done = launcher.run("""
            import tensorflow as tf

            @distributed("tensorflow", worker=2, local=QUIET)
            def double(tensor):
                return 2 * tensor

            result = double(tf.constant([[1.0, 2.0]]))
            assert isinstance(result, tf.Tensor), type(result)
            print(result.numpy().tolist())
        """)
        assert (done.returncode, done.stdout) == (0, "[[2.0, 4.0]]\n"), done.stderr

    @pytest.mark.slow
    def test_a_gibibyte(self, launcher: Launcher) -> None:
        """
        An array of 1 GiB goes there and comes back; no process ever holds two copies of it for one that is needed.
        """
        done = launcher.run("""
            import numpy, resource

            def peak():
                return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

            @distributed("tensorflow", worker=2, local=QUIET)
            def there_and_back(array):
                assert array[-1] == 7 and array.nbytes == 2**30
                return (array if replica().is_coordinator else None), peak()

            array = numpy.full(2**30, 7, dtype=numpy.uint8)
            before = peak()
            back, replicas = there_and_back(array)
            assert back.nbytes == 2**30 and back[0] == back[-1] == 7
            print(round(peak() - before, 3), round(replicas, 3))
        """)
        assert done.returncode == 0, done.stderr
        launcher_grew, replica_peak = map(float, done.stdout.split())
        assert launcher_grew < 1.3
        assert replica_peak < 1.3


class TestWhatCannotBePickled:
    def test_argument(self) -> None:
        """
        The argument is named, wherever it stands in the signature.
        """
        lock = threading.Lock()
        with pytest.raises(
            InvalidJobError, match=r"^argument b of add\(\) cannot be sent .* a lock cannot be pickled .*Make it inside"
        ) as caught:
            task(fates.add).submit(1, lock)
        assert (caught.value.field, caught.value.value) == ("b", lock)
        with pytest.raises(InvalidJobError, match=r"^argument b of add\(\)"):
            task(fates.add).submit(1, b=lock)
        with pytest.raises(InvalidJobError, match=r"^argument args\[1\] of echo\(\)"):
            task(fates.echo).submit(1, [lock])
        with pytest.raises(InvalidJobError, match=r"^argument key of echo\(\)"):
            task(fates.echo).submit(key=lock)

    def test_captured_variable(self) -> None:
        """
        A variable that a closure has captured is named.
        """
        lock = threading.Lock()

        def train() -> None:
            lock.acquire()

        with pytest.raises(InvalidJobError, match=r"^the variable lock of train\(\) cannot be sent"):
            task(train).submit()

    def test_global(self, launcher: Launcher) -> None:
        """
        A global is named, with the function that uses it: the called one, or a helper.
        """
        done = launcher.run("""
            LOCK = threading.Lock()

            def helper():
                return [LOCK for _ in range(3)]

            @distributed("tensorflow", worker=2, local=QUIET)
            def train():
                return helper()

            try:
                train()
            except distrib.InvalidJobError as error:
                print(error)
        """)
        assert done.stdout.startswith("the global LOCK of helper() cannot be sent to the replicas: a lock cannot be pickled")

    def test_default(self) -> None:
        """
        The value that a parameter has by default is named.
        """

        def train(*, lock: Any = threading.Lock()) -> None:  # noqa: B008  # one that is made here
            lock.acquire()

        with pytest.raises(InvalidJobError, match=r"^the default of lock of train\(\) cannot be sent .* a lock cannot"):
            task(train).submit()

    def test_argument_of_a_partial(self) -> None:
        """
        What a partial holds is named by its place or its keyword.
        """
        lock = threading.Lock()
        with pytest.raises(InvalidJobError, match=r"^argument 1 of the partial add\(\) cannot be sent .* a lock cannot"):
            task(functools.partial(fates.add, 1, lock)).submit()
        with pytest.raises(InvalidJobError, match=r"^argument b of the partial add\(\) cannot be sent .* a lock cannot"):
            task(functools.partial(fates.add, b=lock)).submit(1)

    def test_object_of_a_method(self) -> None:
        """
        The object of a bound method is named.
        """
        scale = fates.Scale(1.0)
        scale.lock = threading.Lock()  # type: ignore[attr-defined]
        with pytest.raises(InvalidJobError, match=r"^the object of the method times\(\) cannot be sent .* a Scale cannot"):
            task(scale.times).submit(1.0)

    def test_result(self) -> None:
        """
        A result that cannot be pickled fails its replica, and is named with its type.
        """
        with pytest.raises(ReplicaFailedError, match=r"worker-0 returned a value that cannot be pickled \(generator\)"):
            task(lambda: (each for each in ()), worker=1)()

    def test_nothing_is_left_of_the_run(self, state: Path) -> None:
        """
        A run that could not be submitted is not in the history.
        """
        with pytest.raises(InvalidJobError):
            task(fates.add).submit(threading.Lock())
        assert distrib.runs() == []
        assert list((state / "runs").iterdir()) == []


class TestWrongCalls:
    @pytest.mark.parametrize(
        ("args", "kwargs", "message"),
        [
            ((), {}, r"add\(\) missing a required argument: 'a'"),
            ((1, 2, 3), {}, r"add\(\) too many positional arguments"),
            ((1,), {"c": 1}, r"add\(\) got an unexpected keyword argument 'c'"),
            ((1,), {"a": 1}, r"add\(\) multiple values for argument 'a'"),
        ],
    )
    def test_are_type_errors(self, args: tuple[Any, ...], kwargs: dict[str, Any], message: str) -> None:
        """
        A wrong call is a ``TypeError`` before anything starts, as for the plain function.
        """
        with pytest.raises(TypeError):
            fates.add(*args, **kwargs)
        for way in (task(fates.add), task(fates.add).submit, task(fates.add).plan):
            with pytest.raises(TypeError, match=message):
                way(*args, **kwargs)
        assert distrib.runs() == []


def _numbers() -> Any:
    yield 1


async def _later() -> None: ...


class TestWrongFunctions:
    @pytest.mark.parametrize(
        ("function", "said"),
        [
            (3, "decorates a function; this is 3"),
            (classmethod(fates.name), "decorates a function; this is <classmethod"),
            (_numbers, r"_numbers\(\) is a generator: .* e.g. with list\(\)"),
            (_later, r"_later\(\) is async: .* e.g. with asyncio.run\(\)"),
            (task(fates.name), r"<name: distributed tensorflow, worker=2> is decorated already: write .options"),
        ],
    )
    def test_are_refused(self, function: Any, said: str) -> None:
        """
        What is no plain function is refused where it is decorated, and told what to write instead.
        """
        with pytest.raises(InvalidJobError, match=said):
            task(function)

    def test_framework_is_missing(self) -> None:
        """
        A decorator that was given no framework says how it is given one.
        """
        with pytest.raises(InvalidJobError, match=r"needs a framework: write @distributed\(framework='tensorflow', worker=2\)"):
            distrib.distributed(fates.name)  # type: ignore[arg-type]


class TestCallers:
    def test_thread(self) -> None:
        """
        A call from a thread works.
        """
        values: list[int] = []
        thread = threading.Thread(target=lambda: values.append(task(fates.add)(1)))
        thread.start()
        thread.join(PATIENCE)
        assert values == [2]

    def test_thread_with_blocked_signals(self) -> None:
        """
        A thread that has blocked all signals, as worker threads of servers do, sees its run end all the same.
        """
        import signal

        values: list[Any] = []

        def blocked() -> None:
            signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
            run = task(fates.name).submit()
            values.append(run.result(PATIENCE))
            values.append(task(signal.pthread_sigmask)(signal.SIG_BLOCK, []))

        thread = threading.Thread(target=blocked)
        thread.start()
        thread.join(PATIENCE)
        assert values == ["worker-0", set()]

    def test_two_runs_at_once(self, meeting: Path) -> None:
        """
        Two runs at once do not disturb each other: neither can end before the other has begun.
        """

        def meet(me: str, other: str) -> str:
            fates.sign(str(meeting), f"{me}-{distrib.replica().name}")
            fates.await_sign(str(meeting), f"{other}-{distrib.replica().name}")
            return me

        first = task(meet).submit("a", "b")
        second = task(meet).submit("b", "a")
        assert first.id != second.id
        assert (first.result(PATIENCE), second.result(PATIENCE)) == ("a", "b")

    def test_within_a_replica(self) -> None:
        """
        A replica cannot start a run; the error says what to call there instead.
        """
        inner = task(fates.add)

        def nested() -> str:
            try:
                inner(1)
            except SubmitError as error:
                return str(error)
            return f"ran: {inner.function(1)}"

        said = task(nested)()
        assert said.startswith("add() was called within worker-0 of a run: a replica cannot start a run of its own.")
        assert "call add.function(...)" in said

    def test_running_event_loop(self) -> None:
        """
        With an event loop running, blocking calls work, and runs can be awaited, several at once.
        """

        async def main() -> list[int]:
            blocking = task(fates.add)(1)
            return [blocking, *await asyncio.gather(*(_await(task(fates.add).submit(number)) for number in (2, 3)))]

        assert asyncio.run(main()) == [2, 3, 4]

    def test_awaiting_a_failure(self) -> None:
        """
        Awaiting a run that fails raises what :meth:`result` would.
        """
        with pytest.raises(ReplicaFailedError, match="bad batch") as caught:
            asyncio.run(_await(task(fates.fail_as).submit("raise")))
        assert isinstance(caught.value.__cause__, ValueError)

    def test_a_wait_that_is_given_up(self, meeting: Path) -> None:
        """
        A coroutine that stops waiting leaves the run as it is.
        """
        run = task(fates.await_sign).submit(str(meeting), "go")

        async def main() -> None:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(_await(run), 0.01)

        asyncio.run(main())
        assert not run.status().state.is_final
        (meeting / "go").touch()
        assert run.wait(PATIENCE).state is RunState.SUCCEEDED

    def test_fork_of_the_launcher(self, launcher: Launcher) -> None:
        """
        A copy of the launcher follows a run by its history, and does not stop it when it ends.
        """
        done = launcher.run("""
            import warnings
            warnings.simplefilter("ignore", DeprecationWarning)  # Python's own, of forking beside a thread

            @distributed("tensorflow", worker=2, local=QUIET)
            def train():
                await_sign("go")
                return 5

            run = train.submit()
            child = os.fork()
            if child == 0:
                sys.exit(0)  # with all that is done at an interpreter's end
            assert os.waitpid(child, 0)[1] == 0
            child = os.fork()
            if child == 0:
                assert not run.status().state.is_final
                sign("go")
                os._exit(0 if run.result() == 5 and run.status().state is distrib.RunState.SUCCEEDED else 1)
            assert os.waitpid(child, 0)[1] == 0
            print(run.result())
        """)
        assert (done.stdout, done.stderr) == ("5\n", "")


async def _await(run: distrib.Run[Any]) -> Any:
    return await run


CELLS = {
    "define": """
        import os, sys, time
        from pathlib import Path
        from distrib import distributed, replica

        class Box:
            def __init__(self, value):
                self.value = value

        @distributed("tensorflow", worker=2)
        def train(value):
            print("training in", replica().name)
            return Box(value + replica().rank)
    """,
    "call": "box = train(1); (type(box) is Box, box.value)",
    "await": "(await train.submit(2)).value",
    "fail": """
        @distributed("tensorflow", worker=2)
        def fail():
            raise ValueError("bad batch")
        fail()
    """,
    "ready": "'ready'",
    "wait": """
        @distributed("tensorflow", worker=2, local={"echo": False})
        def wait(meeting):
            Path(meeting, replica().name).touch()
            time.sleep(1000)
        wait(MEETING)
    """,
    "after": "import distrib; distrib.runs()[0].status().state.value",
}


class TestNotebook:
    def test_jupyter(self, meeting: Path) -> None:
        """
        In a Jupyter kernel, whose event loop runs, a function of a cell can be called and awaited, its output is shown, and an
        interrupt stops the run.
        """
        import nbformat
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError

        cells = {name: nbformat.v4.new_code_cell(textwrap.dedent(text)) for name, text in CELLS.items()}
        cells["define"].source += f"\nMEETING = {str(meeting)!r}\n"
        client = NotebookClient(nbformat.v4.new_notebook(cells=list(cells.values())), timeout=PATIENCE, kernel_name="python3")

        async def run(name: str) -> str:
            await client.async_execute_cell(cells[name], list(cells).index(name))
            return "".join(_shown(output) for output in cells[name].outputs)

        async def interrupt_when_waiting() -> None:
            await asyncio.to_thread(eventually, lambda: len(list(meeting.iterdir())) == 2, "both replicas to wait")
            await client.km.interrupt_kernel()

        async def main() -> None:
            async with client.async_setup_kernel():
                await run("define")
                assert "(True, 1)" in (shown := await run("call"))
                assert "[worker-0] training in worker-0\n" in shown
                assert "[worker-1] training in worker-1\n" in shown
                assert "succeeded in" in shown
                assert "2" in await run("await")
                with pytest.raises(CellExecutionError, match=r"worker-. failed with ValueError: bad batch"):
                    await run("fail")
                while "ready" not in await run("ready"):  # a kernel passes over what comes at once after an error
                    pass
                interrupting = asyncio.create_task(interrupt_when_waiting())
                with pytest.raises(CellExecutionError, match="KeyboardInterrupt"):
                    await run("wait")
                await interrupting
                assert "Cancelled" in await run("after")

        asyncio.run(main())


def _shown(output: Any) -> str:
    if output.output_type == "stream":
        return str(output.text)
    return str(output.get("data", {}).get("text/plain", ""))
