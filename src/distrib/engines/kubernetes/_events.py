"""
What has happened to a run, in order.
"""

from __future__ import annotations

from ...engine import Event
from ._seen import seconds_of
from ._state import State, said_of


def events_of(state: State) -> list[Event]:
    """
    What is known to have happened: to its pods, and what Kubernetes has complained about.
    """
    found: list[Event] = []
    replicas = {pod.name: pod.replica for pod in state.pods.values()}
    for uid, pod in state.pods.items():
        found.append(Event(time=seconds_of(pod.created), kind="created", replica=pod.replica, message=f"pod {pod.name}"))
        if pod.started:
            found.append(Event(time=pod.started, kind="started", replica=pod.replica))
        for (owner, _), end in state.ends.items():
            if owner == uid:
                said = said_of(end)
                code = f"code {end.code}" if end.report is None or end.report.signal is None else f"signal {end.report.signal}"
                found.append(Event(time=end.time, kind="exited", replica=pod.replica, message=f"{code}{f': {said}' if said else ''}"))
    notes = state.notes.values()
    found += [Event(time=note.time, kind=note.reason, replica=replicas.get(note.about, ""), message=note.message) for note in notes]
    found.sort(key=lambda event: event.time)
    if state.final is not None:
        last = found[-1].time if found else 0.0
        found.append(
            Event(time=last, kind="finished", replica=state.final.root, message=f"{state.final.state.value} {state.final.reason}".strip())
        )
    return found
