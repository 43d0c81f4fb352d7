"""
What a replica tells the engine that started it, while it runs.

Imports next to nothing: it is loaded in every replica, and where there is no engine to tell, everything here does
nothing.
"""

from __future__ import annotations

import json
import os

#: ``fd:inode`` of the pipe to the supervisor. The inode guards against a descendant in which the number means another file.
CHANNEL_VARIABLE = "DISTRIB_CHANNEL"
NAME_VARIABLE = "DISTRIB_REPLICA_NAME"

# Writes of up to this many bytes to a pipe are never torn (POSIX says at least 512; Linux, 4,096).
_ATOMIC = 4096


def serving() -> None:
    """
    Say that this replica serves from now on and never ends by itself: it is stopped when the rest is done.
    """
    send("serving")


def progress(text: str) -> None:
    """
    Show the user one line about a step that may take long, such as waiting for the cluster.
    """
    send("progress", text=" ".join(str(text).split()))


def keep_channel() -> None:
    """
    Let the program that is about to take this process's place send messages too.
    """
    channel = os.environ.get(CHANNEL_VARIABLE)
    if channel is not None:
        os.set_inheritable(int(channel.split(":")[0]), True)


def send(kind: str, **fields: object) -> None:
    """
    Send one message to the supervisor, if there is one. Texts that are too long for it are cut short.
    """
    channel = os.environ.get(CHANNEL_VARIABLE)
    if channel is None:
        return
    number, inode = map(int, channel.split(":"))
    line = _line({"kind": kind, "replica": os.environ.get(NAME_VARIABLE, ""), **fields})
    try:
        if os.fstat(number).st_ino == inode:
            os.write(number, line)
    except OSError:
        # The supervisor is gone, and with it anyone to tell; this process is about to be ended.
        pass


def _line(message: dict[str, object]) -> bytes:
    # How many bytes a character takes depends on the character: from 1 to 12, as JSON has it.
    for longest in (1_000, 300, 80):
        short = {key: value[:longest] if isinstance(value, str) else value for key, value in message.items()}
        line = json.dumps(short).encode() + b"\n"
        if len(line) <= _ATOMIC:
            break
    return line
