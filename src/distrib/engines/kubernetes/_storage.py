"""
The run's folder in a storage that both the pods and the client can reach: what is too large for Kubernetes goes there.
"""

from __future__ import annotations

from typing import Any

__all__ = ["read", "write"]


def write(url: str, data: bytes) -> None:
    """
    Keep *data* at *url*, which ``fsspec`` understands; folders are made.
    """
    import fsspec

    system, path = fsspec.core.url_to_fs(url)
    system.makedirs(system._parent(path), exist_ok=True)  # noqa: SLF001  # has no other name
    with system.open(path, "wb") as file:
        file.write(data)


def read(url: str) -> bytes:
    """
    The inverse of :func:`write`.
    """
    import fsspec

    with fsspec.open(url, "rb") as file:
        data: Any = file.read()
    return bytes(data)
