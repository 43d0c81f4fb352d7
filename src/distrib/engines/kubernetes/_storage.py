"""
The run's folder in a storage that both the pods and the client can reach: what is too large for Kubernetes goes there.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from typing import IO, Any, cast

from ...errors import MissingDependencyError

__all__ = ["read", "write"]


def write(url: str, data: bytes) -> None:
    """
    Keep *data* at *url*, which ``fsspec`` understands; folders are made.

    Raises:
        MissingDependencyError: A package for that kind of storage is not installed. All else is the storage's own.
    """
    with _opened(url, "wb") as file:
        file.write(data)


def read(url: str) -> bytes:
    """
    The inverse of :func:`write`.
    """
    with _opened(url, "rb") as file:
        return bytes(file.read())


def _opened(url: str, mode: str) -> AbstractContextManager[IO[Any]]:
    try:
        import fsspec

        return cast("AbstractContextManager[IO[Any]]", fsspec.open(url, mode))
    except ImportError as error:
        # Of fsspec itself, or in its words: "Install s3fs to access S3".
        wanted = re.search(r"[Ii]nstall ([\w.-]+)", str(error))
        package = error.name or (wanted[1] if wanted else "fsspec")
        raise MissingDependencyError(
            f"kubernetes.storage: {url} needs a package that is not installed ({error}). "
            f"Install it here and in the image with: python -m pip install {package}",
            name=package,
        ) from error
