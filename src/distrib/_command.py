"""
Any program as the thing to run.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, NoReturn

from .errors import InvalidJobError

if TYPE_CHECKING:
    from _typeshed import StrPath


class Command:
    """
    A program and its arguments, callable like a function: it takes the place of the process that calls it.

    .. doctest::

        >>> from distrib import Command, distributed
        >>> task = distributed(framework="tensorflow", worker=2, local={"echo": False})(Command(["true"]))
        >>> task.submit().wait().state
        <RunState.SUCCEEDED: 'Succeeded'>

    Args:
        argv: The program, looked up in ``PATH``, and its arguments. No shell reads them.

    Raises:
        InvalidJobError: It is empty, or holds something that is no argument.
    """

    def __init__(self, argv: Iterable[StrPath]) -> None:
        if isinstance(argv, (str, bytes, Mapping, AbstractSet)) or not isinstance(argv, Iterable):
            raise InvalidJobError(
                f"argv={argv!r}: write a list, as in ['python', 'train.py']; no shell reads it.", field="argv", value=argv
            )
        given = list(argv)
        for place, argument in enumerate(given):
            if not _is_argument(argument):
                raise InvalidJobError(f"argv[{place}]={argument!r}: write text without NUL.", field=f"argv[{place}]", value=argument)
        if not given or not os.fspath(given[0]):
            raise InvalidJobError(f"argv={given!r}: write at least the program, as in ['python', 'train.py'].", field="argv", value=given)
        self.argv = [os.fspath(argument) for argument in given]
        self.__name__ = os.path.basename(self.argv[0])  # noqa: PTH119  # names the run
        self._defaults = {"PYTHONUNBUFFERED": "1"}  # what Python prints is seen at once, and is not lost with the process

    def __call__(self) -> None:
        """
        Become the program; its exit code is the replica's.
        """
        self.set_defaults()
        become(self.argv)

    def with_defaults(self, variables: Mapping[str, str]) -> Command:
        """
        The same program, which finds these variables where nobody has set them to anything else.
        """
        copy = Command(self.argv)
        copy._defaults = {**self._defaults, **variables}
        return copy

    def set_defaults(self) -> None:
        """
        Set the variables that nobody has set, in this process: those of a program are the ones of the process it takes the place of.
        """
        for name, value in self._defaults.items():
            os.environ.setdefault(name, value)

    def __repr__(self) -> str:
        return f"Command({self.argv!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Command, (self.argv,), {"_defaults": self._defaults})


def _is_argument(value: object) -> bool:
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    try:
        return isinstance(text, str) and b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:  # no byte stands for it
        return False


def become(argv: list[str]) -> NoReturn:
    """
    Replace this process by a program.

    Raises:
        FileNotFoundError: There is no such program.
    """
    import signal

    from . import _report

    # Python ignores it, and what is ignored stays so in the program; most expect the default.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    _report.keep_channel()
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        failure = not_started(error, argv[0])
    raise failure  # without the search path's frames


def not_started(error: OSError, program: str) -> OSError:
    """
    What is told where *program* cannot be started: what is wrong is the word that the user wrote.
    """
    return type(error)(error.errno, f"the program cannot be started: {error.strerror}", program)
