"""
The folder of a run, and the folders of all of them: what is left to read when the run's processes are gone.

::

    <state folder>/runs/<id>/
        run.json         what was submitted, by whom                 written once, before anything starts
        events.jsonl     what happened, one line of JSON an event    appended by the supervisor
        logs/            <replica>.log, supervisor.log               appended by the replicas themselves
        results/         <replica>.pickle, .error.json, .exception.pickle
        alive            locked for as long as the supervisor lives

A line that was cut short by a crash is passed over; a run without a last event whose lock is free has lost its supervisor.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import evolve

from ...engine import Event, ReplicaStatus, RunState, RunStatus
from ...errors import SubmitError

#: Where to keep the history instead of the user's state directory.
STATE_VARIABLE = "DISTRIB_STATE_DIR"
#: More finished runs than this, or older ones, are not kept.
KEEP_RUNS = 200
KEEP_SECONDS = 30 * 24 * 3600.0
_PRUNE_SECONDS = 3600.0
_STARTING_SECONDS = 60.0

#: The reason of a run whose supervisor ended without a word.
SUPERVISOR_LOST = "SupervisorLost"
_TOLD = ("time", "kind", "replica", "text", "type")
_FINAL = {"Succeeded": RunState.SUCCEEDED, "Failed": RunState.FAILED, "Cancelled": RunState.CANCELLED}


def runs_folder() -> str:
    """
    Where the folders of all runs are.
    """
    return os.path.join(_state_folder(), "runs")


def _state_folder() -> str:
    chosen = os.environ.get(STATE_VARIABLE)
    if chosen:
        return os.path.abspath(chosen)
    if sys.platform == "linux":
        # What platformdirs answers here, without the 20 ms that importing it adds to every run.
        home = os.environ.get("XDG_STATE_HOME", "").strip() or os.path.expanduser("~/.local/state")
        # A relative one would mean another folder as soon as the program changes its own.
        return os.path.abspath(os.path.join(home, "distrib"))
    import platformdirs

    return platformdirs.user_state_dir("distrib", appauthor=False)


def _is_homeless() -> bool:
    # A user who is in no list of users, as in some containers, and has no HOME either.
    chosen = os.environ.get(STATE_VARIABLE) or os.environ.get("XDG_STATE_HOME", "").strip()
    return not chosen and os.path.expanduser("~") == "~"


def create(id: str, about: Mapping[str, Any]) -> tuple[str, int]:
    """
    Make the folder of a new run; it, and the descriptor that says that the run lives.

    Raises:
        SubmitError: It cannot be written; the message says where and what to do.
    """
    made = False
    folder = id
    if _is_homeless():
        raise SubmitError(f"there is no home directory to keep the run's folder in. Set {STATE_VARIABLE} to a folder that can be written.")
    try:
        folder = os.path.join(runs_folder(), id)
        os.makedirs(runs_folder(), exist_ok=True)
        os.mkdir(folder, 0o700)  # results are unpickled from here: nobody else may write
        made = True
        for part in ("logs", "results"):
            os.mkdir(os.path.join(folder, part))
        # Locked before it can be found: nobody takes a run that is being started for one that has lost its supervisor.
        lock = lock_alive(folder)
        try:
            _write_about(folder, about)
        except BaseException:
            os.close(lock)
            raise
        return folder, lock
    except OSError as error:
        if made:
            import shutil

            shutil.rmtree(folder, ignore_errors=True)
        raise SubmitError(
            f"the run's folder {folder} cannot be written ({error.strerror}). Set {STATE_VARIABLE} to a folder that can be written."
        ) from error


def _write_about(folder: str, about: Mapping[str, Any]) -> None:
    partial, path = os.path.join(folder, ".run.json"), os.path.join(folder, "run.json")
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(about, file)
    os.replace(partial, path)


def read_about(folder: str) -> dict[str, Any]:
    """
    What was submitted; empty if the folder is no run's, or cannot be read.
    """
    try:
        with open(os.path.join(folder, "run.json"), encoding="utf-8") as file:
            about = json.load(file)
    except (OSError, ValueError):
        return {}
    names = about.get("replicas") if isinstance(about, dict) else None
    whole = isinstance(names, list) and all(isinstance(name, str) for name in names) and about.get("coordinator") in names
    return about if whole else {}


def read_events(folder: str) -> list[dict[str, Any]]:
    """
    All events that were written down whole.
    """
    try:
        with open(os.path.join(folder, "events.jsonl"), "rb") as file:
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:  # a write that the disk had no room for
            continue
        if isinstance(event, dict) and "kind" in event:
            found.append(event)
    return found


def for_people(event: Mapping[str, Any]) -> Event:
    """
    An event as the public API shows it.
    """
    rest = {key: value for key, value in event.items() if key not in _TOLD and value not in ("", None)}
    said = ": ".join(part for part in (event.get("type", ""), event.get("text", "")) if part)
    message = " ".join([*([said] if said else []), *(f"{key}={value}" for key, value in rest.items())])
    return Event(time=event.get("time", 0.0), kind=event["kind"], replica=event.get("replica") or "", message=message)


class Progress:
    """
    A run's status, kept up to date from its events.
    """

    def __init__(self, names: list[str]) -> None:
        self.replicas = {name: ReplicaStatus() for name in names}
        self.state = RunState.PENDING
        self.reason = ""
        self.root = ""
        self.restarts = 0
        self.finished = False
        #: The exit code of a supervisor that ended without a word, where it is known; negative for a signal.
        self.code: int | None = None
        #: What each replica said about its last failure, should its own notes of it be missing.
        self.raised: dict[str, dict[str, Any]] = {}

    def take(self, event: Mapping[str, Any]) -> None:
        """
        Follow one event.
        """
        kind, name = event["kind"], event.get("replica", "")
        if kind == "finished":
            self.finished = True
            self.state = _FINAL[event["state"]]
            self.reason, self.root, self.restarts = event["reason"], event["replica"], event["restarts"]
            self._stop("Waiting", "Stopping")  # it was not to be started any more
        elif name in self.replicas:
            self.replicas[name] = self._next(kind, self.replicas[name], event)
            if kind == "raised":
                self.raised[name] = dict(event)
            self.restarts += kind == "restarting"
            self.state = {"started": RunState.RUNNING, "restarting": RunState.RESTARTING}.get(kind, self.state)

    def lose(self, code: int | None = None) -> None:
        """
        The supervisor ended without a word, and the replicas with it.
        """
        self.code = code
        self.state, self.reason, self.finished = RunState.FAILED, SUPERVISOR_LOST, True
        self._stop("Waiting", "Running", "Stopping")

    def _stop(self, *states: str) -> None:
        for name, status in self.replicas.items():
            if status.state in states:
                self.replicas[name] = evolve(status, state="Stopped")

    @staticmethod
    def _next(kind: str, old: ReplicaStatus, event: Mapping[str, Any]) -> ReplicaStatus:
        if kind == "started":
            # It may be asked to stop before it has said that it started.
            return ReplicaStatus(state=old.state if old.state == "Stopping" else "Running", attempt=event["attempt"])
        if kind == "signalled" and old.state != "Failed":
            return ReplicaStatus(state="Stopping", attempt=old.attempt, message=old.message)
        if kind == "exited":
            ended = "Succeeded" if event["returned"] else "Stopped" if old.state == "Stopping" else "Failed"
            number = event["signal"] or None
            code = None if number else event["code"]
            return ReplicaStatus(state=ended, attempt=old.attempt, exit_code=code, signal=number, message=old.message)
        if kind in ("progress", "note", "raised", "restarting"):
            text = ": ".join(part for part in (event.get("type"), event.get("text")) if part)
            return evolve(old, state="Waiting" if kind == "restarting" else old.state, message=text)
        return old

    def status(self) -> RunStatus:
        """
        The status as the public API shows it.
        """
        return RunStatus(state=self.state, reason=self.reason, replicas=dict(self.replicas), restarts=self.restarts)


def lock_alive(folder: str) -> int:
    """
    Say that the run lives, for as long as the descriptor is open; any number of processes may say so.
    """
    import fcntl

    number = os.open(os.path.join(folder, "alive"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    fcntl.flock(number, fcntl.LOCK_SH)
    return number


def is_alive(folder: str) -> bool:
    """
    Whether the run's supervisor, or the launcher that is starting it, lives.
    """
    import fcntl

    try:
        number = os.open(os.path.join(folder, "alive"), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(number)
    return False


def folders() -> Iterator[tuple[str, dict[str, Any]]]:
    """
    The folders of all runs and what was submitted, the newest first; those that have outlived their time to live are left out.
    """
    for folder in _by_age():
        about = read_about(folder)
        if about and not has_expired(folder, about):
            yield folder, about


def outdated() -> list[str]:
    """
    The folders of the runs that are to be removed, if it is time to look for them.
    """
    mark = os.path.join(runs_folder(), ".pruned")
    now = time.time()
    try:
        if now - _modified(mark) < _PRUNE_SECONDS and len(os.listdir(runs_folder())) <= 2 * KEEP_RUNS:
            return []
        with open(mark, "w", encoding="ascii"):
            pass
    except OSError:  # somebody removes the folder, or nothing can be written: no reason to fail a run that is over
        return []
    found = [folder for place, folder in enumerate(_by_age()) if _is_outdated(place, folder, now)]
    if found:
        # Before anybody goes on: this import executes text, and a thread that does so while the program ends by Ctrl-C makes
        # Python forget that, and end with another exit code.
        import shutil  # noqa: F401
    return found


def _is_outdated(place: int, folder: str, now: float) -> bool:
    about = read_about(folder)
    expired = has_expired(folder, about) and not _may_be_read(about)
    unwanted = place >= KEEP_RUNS or now - _changed(folder) > KEEP_SECONDS or not about or expired
    # One that is being started has no run.json, or no lock, for a moment.
    return unwanted and not is_alive(folder) and now - _modified(folder) > _STARTING_SECONDS


def remove(found: list[str]) -> None:
    """
    Remove the folders of runs that are over.
    """
    for folder in found:
        import shutil

        shutil.rmtree(folder, ignore_errors=True)


def _may_be_read(about: Mapping[str, Any]) -> bool:
    # The program that started the run reads results and logs from the folder when it is asked for them.
    try:
        os.kill(about["launcher"], 0)
    except (OSError, KeyError, TypeError):
        return False
    return True


def _by_age() -> list[str]:
    try:
        # What has no such file was not made here: somebody else may call a folder "runs", and keep things in it.
        entries = [entry.path for entry in os.scandir(runs_folder()) if os.path.isfile(os.path.join(entry.path, "alive"))]
    except OSError:
        return []
    return sorted(entries, key=_modified, reverse=True)


def _modified(folder: str) -> float:
    try:
        return os.stat(folder).st_mtime
    except OSError:
        return 0.0


def _changed(folder: str) -> float:
    return max(_modified(folder), _modified(os.path.join(folder, "events.jsonl")))


def _finished(folder: str) -> float | None:
    events = read_events(folder)
    return events[-1]["time"] if events and events[-1]["kind"] == "finished" else None


def has_expired(folder: str, about: Mapping[str, Any]) -> bool:
    """
    Whether the run has outlived its time to live.
    """
    ttl = about.get("ttl")
    if ttl is None:
        return False
    finished = _finished(folder)
    return finished is not None and time.time() - finished > ttl
