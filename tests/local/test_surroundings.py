"""
What happens when the machine does not offer what a run needs: room, descriptors, ports, the framework.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fates
import pytest
from watching import PATIENCE, Launcher, task

import distrib
from distrib import ReplicaFailedError, RunState, SubmitError


@pytest.fixture(name="small_disk")
def _small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """
    A file system with 256 KiB, in which the history is kept.
    """
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("only root can mount a small file system")
    done = subprocess.run([mount, "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"this root cannot mount: {done.stderr.decode()}")
    monkeypatch.setenv("DISTRIB_STATE_DIR", str(folder))
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> None:
    """
    Leave no room in a file system.
    """
    try:
        with (folder / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


class TestDisk:
    def test_folder_that_cannot_be_made(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        A state folder that cannot be made is told with its path and the variable to set, and nothing is started.
        """
        (tmp_path / "file").touch()
        monkeypatch.setenv("DISTRIB_STATE_DIR", str(tmp_path / "file" / "state"))
        with pytest.raises(SubmitError, match=r"file/state/runs/.* cannot be written \(Not a directory\). Set DISTRIB_STATE_DIR to"):
            task(fates.name)()

    def test_read_only_folder(self, small_disk: Path) -> None:
        """
        The same for a file system that is read-only.
        """
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
        with pytest.raises(SubmitError, match=r"cannot be written \(Read-only file system\)"):
            task(fates.name)()

    def test_full_before_the_start(self, small_disk: Path) -> None:
        """
        The same for one without any room, and nothing is left of the run.
        """
        fill(small_disk)
        with pytest.raises(SubmitError, match=r"cannot be written \(No space left on device\)"):
            task(fates.name)()
        assert list((small_disk / "runs").iterdir()) == []

    def test_full_during_the_run(self, small_disk: Path, meeting: Path) -> None:
        """
        A history that cannot be written on does not stop a run that needs no room; what is read of it later is still sound.
        """

        def wait() -> None:
            fates.sign(str(meeting))
            fates.await_sign(str(meeting), "go")

        run = task(wait, worker=5).submit()
        for index in range(5):
            while not (meeting / f"worker-{index}").exists():
                pass
        fill(small_disk)
        (meeting / "go").touch()
        status = run.wait(PATIENCE)
        assert status.state in (RunState.SUCCEEDED, RunState.FAILED)
        if status.state is RunState.FAILED:
            with pytest.raises(ReplicaFailedError, match=r"could not be kept: No space left on device"):
                run.result()
        assert distrib.get_run(run.id).status().state.is_final

    @pytest.mark.parametrize("what", ["result", "output", "exception"])
    def test_filled_by_the_run(self, small_disk: Path, what: str) -> None:
        """
        A result, or output, for which there is no room fails the run with the system's words; it never hangs. An exception
        arrives all the same.
        """

        def produce() -> bytes | None:
            if what == "result":
                return bytes(10**6)
            if what == "output":
                for _ in range(1000):
                    print("x" * 1000)
            raise ValueError("y" * 10**6)

        with pytest.raises(ReplicaFailedError) as caught:
            task(produce, worker=1)()
        expected = {
            "result": "OSError: [Errno 28] the value of worker-0 could not be kept: No space left on device",
            "output": "OSError: [Errno 28] No space left on device",
            "exception": "ValueError: yyyyyyyyy",
        }
        assert f"failed with {expected[what]}" in str(caught.value)

    @pytest.mark.parametrize("what", ["result", "output", "call"])
    def test_limited_size_of_files(self, launcher: Launcher, what: str) -> None:
        """
        A limit on the size of files, as ``ulimit -f`` sets, is told as what it is.
        """
        done = launcher.run(f"""
            import resource
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

            @distributed("tensorflow", worker=1, local=QUIET)
            def produce(what, data):
                if what == "output":
                    print("x" * 1_000_000)
                return bytes(1_000_000)

            try:
                produce({what!r}, bytes(1_000_000) if {what!r} == "call" else b"")
            except distrib.EngineError as error:
                print(type(error).__name__, error)
        """)
        assert done.returncode == 0, done.stderr
        kind = "SubmitError the arguments of produce() cannot be kept in memory" if what == "call" else "ReplicaFailedError worker-0 failed"
        assert done.stdout.startswith(kind)
        assert "File too large" in done.stdout


class TestDirectories:
    def test_working_directory_is_gone(self, launcher: Launcher) -> None:
        """
        A working directory that was removed matters to neither a run nor its failure.
        """
        done = launcher.run("""
            import tempfile
            folder = tempfile.mkdtemp()
            os.chdir(folder)
            os.rmdir(folder)

            @distributed("tensorflow", worker=2, local=QUIET)
            def train(fail):
                if fail:
                    raise ValueError("bad batch")
                return 5

            print(train(False), train.on("local", start_method="spawn")(False))
            try:
                train(True)
            except distrib.ReplicaFailedError as error:
                print(str(error).splitlines()[0].partition(" ")[2])
        """)
        assert (done.stdout, done.stderr) == ("5 5\nfailed with ValueError: bad batch (exit code 1)\n", "")

    def test_working_directory_is_kept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        Replicas work where the program does; a relative state folder means what it meant at the start.
        """
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("DISTRIB_STATE_DIR", "relative")
        assert task(os.getcwd)() == str(tmp_path)
        assert len(list((tmp_path / "relative" / "runs").glob("getcwd-*"))) == 1

    def test_folder_removed_during_the_run(self, state: Path, meeting: Path) -> None:
        """
        A run whose folder somebody removes fails; it does not hang.
        """
        run = task(fates.await_sign).submit(str(meeting), "go")
        while not list(state.glob("runs/*/events.jsonl")):
            pass
        shutil.rmtree(state)
        (meeting / "go").touch()
        assert run.wait(PATIENCE).state is RunState.FAILED
        assert isinstance(run.exception(), distrib.RunFailedError)


class TestDescriptors:
    @pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
    @pytest.mark.parametrize("start_method", ["fork", "spawn"])
    def test_closed_standard_streams(self, launcher: Launcher, closed: str, start_method: str) -> None:
        """
        A program without some of its standard streams can run jobs, with large arguments too.
        """
        path = launcher.write(f"""
            import numpy

            @distributed("tensorflow", worker=2, local={{"start_method": {start_method!r}}})
            def train(array):
                print("in", replica().name)
                sign()
                return int(array.sum())

            Path(MEETING, "result").write_text(str(train(numpy.ones(100_000, dtype=int))))
            try:
                distributed("tensorflow", worker=2)(lambda: 1 / 0)()
            except distrib.ReplicaFailedError as error:
                Path(MEETING, "error").write_text(str(error))
        """)
        command = [sys.executable, str(path), str(launcher.meeting), str(Path(__file__).parent)]
        done = subprocess.run(["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *command], capture_output=True, timeout=PATIENCE, check=False)
        assert done.returncode == 0, done.stderr
        assert (launcher.meeting / "result").read_text() == "100000"
        assert "ZeroDivisionError" in (launcher.meeting / "error").read_text()
        (run,) = (run for run in distrib.runs() if run.id.startswith("train"))
        assert sorted(run.logs()) == ["[worker-0] in worker-0", "[worker-1] in worker-1"]

    def test_reader_that_has_seen_enough(self, launcher: Launcher) -> None:
        """
        ``program | head -1`` ends in good order: the run goes on, and nobody complains.
        """
        path = launcher.write("""
            @distributed("tensorflow", worker=2)
            def train():
                for number in range(1000):
                    print("line", number)
                return 5

            assert train() == 5
        """)
        command = [sys.executable, str(path), str(launcher.meeting), str(Path(__file__).parent)]
        script = '{ "$@"; echo $? > code; } | head -1'
        done = subprocess.run(
            ["/bin/sh", "-c", script, "sh", *command], cwd=launcher.folder, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert done.stdout.count("\n") == 1
        assert (launcher.folder / "code").read_text() == "0\n"
        assert [line.partition(": ")[0] for line in done.stderr.splitlines()] == ["distrib"]

    def test_output_to_a_full_device(self, launcher: Launcher) -> None:
        """
        A terminal or file that takes nothing more does not fail the run.
        """
        with Path("/dev/full").open("w", encoding="ascii") as full:
            done = launcher.run(
                """
                distributed("tensorflow", worker=2)(lambda: print("x" * 100_000))()
                assert distrib.runs()[0].status().state is distrib.RunState.SUCCEEDED
                """,
                stdout=full,
            )
        assert done.returncode == 0, done.stderr

    def test_too_few(self, launcher: Launcher) -> None:
        """
        Too few descriptors for the ports of all replicas are told as such, and nothing is left of the run.
        """
        done = launcher.run("""
            import resource
            resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
            before = len(os.listdir("/proc/self/fd"))
            try:
                distributed("tensorflow", worker=100, local=QUIET)(os.getpid)()
            except distrib.SubmitError as error:
                print(error)
            assert len(os.listdir("/proc/self/fd")) == before
            assert distrib.runs() == []
        """)
        assert done.stderr == ""
        assert "100 free ports are needed" in done.stdout
        assert "Too many open files" in done.stdout

    @pytest.mark.slow
    def test_many_replicas(self, launcher: Launcher) -> None:
        """
        More replicas than files may be open can be run, and shown. Forked from the process that has imported a module, they do
        not block it, nor it the supervisor.
        """
        done = launcher.run("""
            import resource
            resource.setrlimit(resource.RLIMIT_NOFILE, (360, 360))

            @distributed("tensorflow", worker=380, local={"preload": ("json",)})
            def train():
                print(replica().rank)
                return replica().rank

            assert list(train.submit().results()) == list(range(380))
        """)
        assert done.returncode == 0, done.stderr
        assert sorted(int(line.split()[1]) for line in done.stdout.splitlines()) == list(range(380))


class TestThreads:
    def test_no_room_for_one_more(self, launcher: Launcher) -> None:
        """
        A launcher that may start no thread is told so; nothing is left of the run, and the program ends.
        """
        done = launcher.run("""
            threading.stack_size(1 << 60)
            try:
                distributed("tensorflow", worker=2)(os.getpid)()
            except distrib.SubmitError as error:
                print(error)
            assert distrib.runs() == []
        """)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "the thread that follows the run could not be started: can't start new thread\n"


class TestPorts:
    def test_are_held(self, launcher: Launcher, meeting: Path) -> None:
        """
        Between their choice and their use no other program gets the ports of a run; the replicas can listen on theirs, also
        after a restart.
        """
        process = launcher.start("""
            import socket

            @distributed("tensorflow", worker={"replicas": 2, "restart_policy": "OnFailure"}, local={"echo": False, "restart_delay": 0})
            def serve():
                me = replica()
                (MEETING / me.name).write_text(me.address)
                await_sign("taken")
                server = socket.create_server(("127.0.0.1", int(me.address.rpartition(":")[2])))
                if not (MEETING / f"restarted-{me.name}").exists():
                    sign(f"restarted-{me.name}")
                    os._exit(1)
                return server.getsockname()[1] == int(me.address.rpartition(":")[2])

            print(list(serve.submit().results()))
        """)
        refused = 0
        for index in (0, 1):
            sign = launcher.meeting / f"worker-{index}"
            while not (sign.exists() and sign.read_text()):
                pass
            taken = subprocess.run(
                [sys.executable, "-c", f"import socket; socket.socket().bind(('127.0.0.1', {sign.read_text().rpartition(':')[2]}))"],
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
            refused += "Address already in use" in taken.stderr
        assert refused == 2
        launcher.sign("taken")
        assert launcher.finish(process).stdout == "[True, True]\n"

    def test_are_distinct(self, meeting: Path) -> None:
        """
        Two runs at once have no port in common, and those of a run are all different.
        """

        def addresses(me: str, other: str) -> Any:
            fates.sign(str(meeting), me)
            fates.await_sign(str(meeting), other)
            return distrib.replica().cluster["worker"]

        runs = [task(addresses, worker=10).submit(me, other) for me, other in (("a", "b"), ("b", "a"))]
        taken = [address for run in runs for address in run.result(PATIENCE)]
        assert len(set(taken)) == len(taken) == 20


class TestFramework:
    def test_not_installed(self, launcher: Launcher) -> None:
        """
        A framework that is not installed is told with the line to install it, before any process starts and any file is written.
        """
        done = launcher.run("""
            import importlib.abc

            class Hidden(importlib.abc.MetaPathFinder):
                def find_spec(self, name, path=None, target=None):
                    if name == "tensorflow":
                        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

            sys.meta_path.insert(0, Hidden())
            started = []
            sys.addaudithook(lambda event, _: started.append(event) if event in ("subprocess.Popen", "os.fork", "os.posix_spawn") else None)
            try:
                distributed("tensorflow", worker=2)(os.getpid)()
            except distrib.MissingDependencyError as error:
                print(error)
                assert isinstance(error, ImportError) and error.name == "tensorflow"
            assert started == []
            assert not Path(os.environ["DISTRIB_STATE_DIR"]).exists()
        """)
        assert done.stderr == ""
        assert done.stdout == (
            "framework='tensorflow' needs the package 'tensorflow', which is not installed. "
            "Install it with: python -m pip install 'distrib[tensorflow]'\n"
        )
