"""
Everything ``distrib`` raises on purpose.

The tree; a name in parentheses is the built-in class that it also is::

    DistribError
    ├── InvalidJobError (ValueError)             the job or the call is wrong as written
    ├── UnknownBackendError (LookupError)        no such framework
    ├── UnknownEngineError (LookupError)         no such engine
    ├── MissingDependencyError (ImportError)     a package has to be installed first
    ├── UnsupportedError                         this engine cannot honour that field
    ├── RetryableError                           raised by *your* code: this replica may be started again
    └── EngineError                              the engine was asked, and it went wrong
        ├── SubmitError                          nothing was started
        ├── RunTimeoutError (TimeoutError)       a wait, or the run's own deadline, ran out
        ├── RunCancelledError                    the run was cancelled
        └── RunFailedError                       the run failed
            └── ReplicaFailedError               … because of this replica

.. doctest::

    >>> from distrib import distributed
    >>> from distrib.errors import ReplicaFailedError
    >>> @distributed(framework="tensorflow", worker=2, local={"echo": False})
    ... def divide(by: int) -> float:
    ...     return 1 / by
    >>> try:
    ...     divide(0)
    ... except ReplicaFailedError as error:
    ...     print(error.exit_code, repr(error.__cause__))
    1 ZeroDivisionError('division by zero')
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "DistribError",
    "EngineError",
    "InvalidJobError",
    "MissingDependencyError",
    "ReplicaFailedError",
    "RetryableError",
    "RunCancelledError",
    "RunFailedError",
    "RunTimeoutError",
    "SubmitError",
    "UnknownBackendError",
    "UnknownEngineError",
    "UnsupportedError",
]


class DistribError(Exception):
    """
    The root of the tree: whatever ``distrib`` raises on purpose is one of these.
    """


class InvalidJobError(DistribError, ValueError):
    """
    The job, or the call, is wrong as written; nothing was started.

    Args:
        message: What is wrong and what to write instead.

        field: The field at fault, as the user spells it, e.g. ``"worker.replicas"``.

        value: The value that was given for it.

    .. doctest::

        >>> from distrib import InvalidJobError, Job
        >>> try:
        ...     Job("tensorflow", worker=-1)
        ... except InvalidJobError as error:
        ...     print(error.field, error.value)
        worker -1
    """

    def __init__(self, message: str, *, field: str | None = None, value: object = None) -> None:
        super().__init__(message)
        self.field = field
        self.value = value


class UnknownBackendError(DistribError, LookupError):
    """
    No backend has this name; the message lists those that are installed.
    """


class UnknownEngineError(DistribError, LookupError):
    """
    No engine has this name; the message lists those that are installed.
    """


class MissingDependencyError(DistribError, ImportError):
    """
    A package has to be installed first; the message holds the ``pip`` line.
    """


class UnsupportedError(DistribError):
    """
    The engine (or backend) cannot honour a field of the job; nothing was started.

    Args:
        message: What cannot be honoured, by whom, and what to do instead.

        field: The field, as the user spells it.
    """

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class RetryableError(DistribError):
    """
    Raise it in training code to say "start me again": the replica ends with exit code 138.

    138 is the code that Kubeflow's ``ExitCode`` restart policy sets aside for the user to mean
    "retryable" (128 + SIGUSR1). Without a restart policy that honours it, the run fails.

    .. doctest::

        >>> from distrib import RetryableError, distributed
        >>> @distributed(framework="tensorflow", worker=2, local={"echo": False})
        ... def train() -> None:
        ...     raise RetryableError("the storage is away")
        >>> train.submit().exception().exit_code
        138
    """


class EngineError(DistribError):
    """
    The engine was asked to do something, and it went wrong.
    """


class SubmitError(EngineError):
    """
    The run could not be started; nothing of it is left.
    """


class RunTimeoutError(EngineError, TimeoutError):
    """
    A wait ran out (the run goes on), or the run outlived its ``active_deadline_seconds`` (it was stopped).

    ``run.status()`` tells which.
    """


class RunCancelledError(EngineError):
    """
    The run was cancelled before it was done.
    """


class RunFailedError(EngineError):
    """
    The run failed.
    """


class ReplicaFailedError(RunFailedError):
    """
    The run failed because of one replica: the one that failed first.

    Where the replica's exception can be rebuilt it is the ``__cause__``.

    Args:
        message: The report, at most a dozen lines.

        replica: The replica's name, e.g. ``"worker-1"``.

        exit_code: Its exit code, or None if a signal ended it.

        signal: The signal's number, or None.

        hint: What such an end usually means, or an empty string.

        traceback: The replica's traceback as text, or an empty string.

        log_tail: The last lines of its log.
    """

    def __init__(
        self,
        message: str,
        *,
        replica: str,
        exit_code: int | None = None,
        signal: int | None = None,
        hint: str = "",
        traceback: str = "",
        log_tail: str = "",
    ) -> None:
        super().__init__(message)
        self.replica = replica
        self.exit_code = exit_code
        self.signal = signal
        self.hint = hint
        self.traceback = traceback
        self.log_tail = log_tail

    def __reduce__(self) -> tuple[object, ...]:
        # An exception with keyword-only arguments is otherwise lost in pickling.
        return (_rebuild, (type(self), self.args[0], dict(self.__dict__)))


def _rebuild(kind: type[ReplicaFailedError], message: str, fields: dict[str, object]) -> ReplicaFailedError:
    error = kind(message, replica="")
    error.__dict__.update(fields)
    return error


#: What others call what we call by the word behind it, as far as no spelling leads there.
_ELSEWHERE = {
    "chief": "master",
    "keras": "tensorflow",
    "master": "chief",
    "node": "worker",
    "parameter_server": "ps",
    "parameter_servers": "ps",
    "tf": "tensorflow",
}


def did_you_mean(word: object, legal: Iterable[str]) -> str:
    """
    The end of an error message: the nearest legal word, if one is near, and all of them.

    >>> did_you_mean("wroker", ["chief", "worker"])
    " Did you mean 'worker'? Legal: chief, worker."
    >>> did_you_mean("parameter_server", ["worker", "ps"])
    " Did you mean 'ps'? Legal: worker, ps."
    """
    # Imported here: only a failing call pays for it.
    from difflib import get_close_matches

    words = list(legal)
    known = _ELSEWHERE.get(str.__str__(word), "") if isinstance(word, str) else ""
    near = [known] if known in words else get_close_matches(word, words, n=1) if isinstance(word, str) else []
    question = f" Did you mean {near[0]!r}?" if near else ""
    return f"{question} Legal: {', '.join(words) or '(none)'}."
