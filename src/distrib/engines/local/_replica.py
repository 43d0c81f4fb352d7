"""
What runs in a replica's process: take over the process, call the function, keep its value or its exception, end.

Loaded before replicas are forked, so it imports little.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from ... import _report
from ..._command import Command
from ..._linux import die_with_parent
from ..._outcome import NOT_STARTED, code_of, describe, dump_exception, end, explain
from ..._streams import flush, say_why
from .._values import dump, resolve

_LARGE = 1 << 20


class Settings:
    """
    What all replicas of a run have in common; travels as JSON.

    Args:
        folder: Where results and logs go.

        payload: Descriptor of the pickled call.

        table: Offset and size of the table of its parts.

        channel: Descriptor of the pipe to the supervisor.

        supervisor: The supervisor's process id.

        argv: ``sys.argv`` of the program that submitted the run.

        sys_path: ``sys.path`` of that program.
    """

    def __init__(
        self,
        *,
        folder: str,
        payload: int,
        table: tuple[int, int],
        channel: int,
        supervisor: int,
        argv: list[str],
        sys_path: list[str],
    ) -> None:
        self.folder = folder
        self.payload = payload
        self.table = table
        self.channel = channel
        self.supervisor = supervisor
        self.argv = argv
        self.sys_path = sys_path

    def path(self, kind: str, name: str) -> str:
        """
        The file of a replica, e.g. ``path("logs", "worker-0.log")``.
        """
        return os.path.join(self.folder, kind, name)


def prepare(settings: Settings, name: str) -> None:
    """
    Turn a process that was just forked into a replica's: own session, own output, nobody else's descriptors.
    """
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setsid()
    log = os.open(settings.path("logs", f"{name}.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    for mine, standard in ((null, 0), (log, 1), (log, 2)):
        os.dup2(mine, standard)
    close_all_but({0, 1, 2, settings.payload, settings.channel})


def close_all_but(keep: set[int]) -> None:
    """
    Close every descriptor of this process that is not in *keep*.
    """
    try:
        open_ones = [int(entry) for entry in os.listdir("/dev/fd")]
    except OSError:
        open_ones = list(range(1024))
    for number in open_ones:
        if number not in keep:
            try:
                os.close(number)
            except OSError:  # the one of the listing itself
                pass


def variables(settings: Settings, name: str, environment: Mapping[str, str]) -> dict[str, str]:
    """
    The environment of one replica, besides what all of them share.
    """
    channel = f"{settings.channel}:{os.fstat(settings.channel).st_ino}"
    return {**environment, _report.CHANNEL_VARIABLE: channel, _report.NAME_VARIABLE: name}


def run_forked(settings: Settings, name: str, environment: Mapping[str, str], parent: int) -> NoReturn:
    """
    Be the replica *name*, in a process forked for it whose parent is, or is about to be, *parent*. Does not return.
    """
    try:
        become(settings, name, environment)
        _await_parent(parent)
        die_with_parent(parent)
        _reseed()
        _run(settings, name)
    finally:
        os._exit(1)  # whatever happens, the child never goes on as a copy of its parent


def become(settings: Settings, name: str, environment: Mapping[str, str]) -> None:
    """
    Turn a process that was just forked into the replica *name*. Does not return if that fails: the process ends.
    """
    os.environ.update(variables(settings, name, environment))
    try:
        prepare(settings, name)
    except BaseException as error:
        _keep_exception(settings, name, error, NOT_STARTED)
        os._exit(NOT_STARTED)


def run_program(settings: Settings, name: str, environment: Mapping[str, str], argv: list[str]) -> NoReturn:
    """
    Have the program *argv* be the replica *name*, in a process forked for it. Does not return.
    """
    try:
        become(settings, name, environment)
        for number in (settings.payload, settings.channel):
            os.set_inheritable(number, True)
        os.execv(argv[0], argv)
    except BaseException as error:
        _keep_exception(settings, name, error, NOT_STARTED)
    finally:
        os._exit(NOT_STARTED)


def run_fresh() -> NoReturn:
    """
    Be the replica that the arguments describe, in a fresh interpreter.
    """
    given = json.loads(sys.argv[1])
    settings = Settings(**given["settings"])
    die_with_parent(settings.supervisor)
    _run(settings, given["name"])


def _await_parent(parent: int) -> None:
    # A replica forked by the nursery is handed to the supervisor when the process between them has ended.
    between = os.getppid()
    while os.getppid() == between != parent:
        time.sleep(0.0005)


def _reseed() -> None:
    # Python does this for its own generator. What the replicas of a run draw must not depend on how they were started.
    numpy_random: Any = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def _run(settings: Settings, name: str) -> NoReturn:
    _open_standard_streams()
    sys.argv[:] = settings.argv
    for path in settings.sys_path:
        if path not in sys.path:
            sys.path.append(path)
    me = os.getpid()
    _report.send("started", pid=me)
    value, error = _call(settings, name)
    if os.getpid() != me:
        # The function forked, and its child came back here as well. It is no replica, and speaks for none.
        if error is not None:
            sys.excepthook(type(error), error, error.__traceback__)
        end(0 if error is None else 1)
    end(_keep(settings, name, value, error))


def _call(settings: Settings, name: str) -> tuple[object, BaseException | None]:
    try:
        function, args, kwargs = load_call(settings.payload, *settings.table)
        if isinstance(function, Command):
            _write_value(settings, name, None)  # nobody will be left to do it
        return function(*args, **kwargs), None
    except SystemExit as exit:
        say_why(exit)
        return None, exit if code_of(exit) else None
    except BaseException as error:
        return None, error


def _keep(settings: Settings, name: str, value: object, error: BaseException | None) -> int:
    """
    Write down what became of the function; the exit code that says so.
    """
    if error is None:
        try:
            _keep_value(settings, name, value)
        except BaseException as unkept:
            error = unkept
    if error is None:
        return 0
    code = code_of(error)
    _keep_exception(settings, name, error, code)
    return code


def _open_standard_streams() -> None:
    # By lines, so that nothing written before a crash is lost; anything that Python can hold is written somehow.
    for name, number in (("stdout", 1), ("stderr", 2)):
        raw = io.FileIO(number, "w", closefd=False)
        stream = io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", line_buffering=True)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.stdin = sys.__stdin__ = open(0, closefd=False)  # type: ignore[misc]  # noqa: SIM115  # for as long as the process lives


def load_call(payload: int, offset: int, size: int) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    """
    Read back what :func:`._payload.store` wrote.

    What is large is mapped, not read: each replica has its own writable view, and only what it changes takes memory.
    """
    (start, length), *buffers = json.loads(_read(payload, offset, size))
    if buffers or length > _LARGE:
        import mmap

        whole = memoryview(mmap.mmap(payload, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE))
        views = [whole[at : at + length] for at, length in buffers]
        target, (args, kwargs) = pickle.loads(whole[start : start + length], buffers=views)
    else:
        target, (args, kwargs) = pickle.loads(_read(payload, start, length))
    return (resolve(target) if isinstance(target, str) else target), args, kwargs


def _read(number: int, start: int, size: int) -> bytes:
    # Not by its position: all replicas share one.
    return os.pread(number, size, start)


def _keep_value(settings: Settings, name: str, value: object) -> None:
    _write_value(settings, name, value)
    flush()
    _report.send("returned")


def _write_value(settings: Settings, name: str, value: object) -> None:
    # Under its own name only when it is whole: whoever reads it may come when this process has been killed.
    partial, path = settings.path("results", f"{name}.partial"), settings.path("results", f"{name}.pickle")
    try:
        with open(partial, "wb") as file:
            dump(value, file)
        os.replace(partial, path)
    except OSError as error:
        raise OSError(error.errno, f"the value of {name} could not be kept: {error.strerror}", path) from error
    except Exception as error:
        raise TypeError(f"{name} returned a value that cannot be pickled ({type(value).__qualname__}): {error}") from error


def _keep_exception(settings: Settings, name: str, error: BaseException, code: int) -> None:
    """
    Write the exception down three times, each surer to arrive than the one before: pickled, as JSON, as one line.
    """
    flush()
    described = describe(error)
    try:
        details = {**described, **explain(error)}
        with open(settings.path("results", f"{name}.error.json"), "w", encoding="utf-8", errors="backslashreplace") as file:
            json.dump(details, file)
        _pickle_exception(settings, name, error)
    except Exception as problem:  # a full disk, or an exception that fails when it is looked at
        _report.send("progress", text=f"its exception could not be written down in full: {type(problem).__name__}")
    _report.send("raised", code=code, **described)


def _pickle_exception(settings: Settings, name: str, error: BaseException) -> None:
    data = dump_exception(error)
    if data is not None:
        with open(settings.path("results", f"{name}.exception.pickle"), "wb") as file:
            file.write(data)
