"""
Requests to a Kubernetes API server: plain dicts in and out.

Of the official client only what has stayed the same from version 26 to 37 is used: its configuration, which knows kubeconfigs,
exec plug-ins, tokens that expire, TLS and proxies, and its pool of connections. Its models have changed, and are not needed.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from time import sleep, time
from typing import Any
from urllib.parse import urlencode

import attrs

from ...errors import EngineError, MissingDependencyError
from ._kinds import PODS, Kind

# A request that only asks or changes something is answered at once, or it is lost.
_CONNECT_SECONDS, _ANSWER_SECONDS = 10.0, 60.0
#: As many connections as there may be followed logs, before one has to be made anew for each request.
_MOST_KEPT = 64
_CHUNK = 1 << 16
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# A server that has too much to do is asked as often, and says when: no longer than that is waited.
_MOST_TRIES, _LONGEST_WAIT = 5, 10.0


class ApiError(EngineError):
    """
    The API server has refused a request.

    Args:
        message: What was asked, and what it said.

        status: The HTTP status.

        reason: Kubernetes' word for it, e.g. ``"AlreadyExists"``.

        said: The server's own message.
    """

    def __init__(self, message: str, *, status: int, reason: str = "", said: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.said = said

    @property
    def is_absent(self) -> bool:
        """
        Whether what was asked for does not exist.
        """
        return self.status == HTTPStatus.NOT_FOUND

    @property
    def is_forbidden(self) -> bool:
        """
        Whether we may not ask for that.
        """
        return self.status == HTTPStatus.FORBIDDEN

    @property
    def is_taken(self) -> bool:
        """
        Whether an object of that name exists already.
        """
        return self.status == HTTPStatus.CONFLICT and self.reason == "AlreadyExists"


class UnreachableError(EngineError):
    """
    The API server did not answer, or the connection to it broke.
    """


class Stream:
    """
    An answer that comes in pieces, for as long as somebody has something to say.
    """

    def __init__(self, response: Any, what: str) -> None:
        self._response = response
        self._what = what
        self._closed = False

    def pieces(self) -> Iterator[bytes]:
        """
        What comes, as it comes.

        Raises:
            UnreachableError: The connection broke.
        """
        import urllib3

        try:
            yield from self._response.stream(_CHUNK, decode_content=False)
        except (urllib3.exceptions.HTTPError, OSError, ValueError, AttributeError) as error:
            # The last two: somebody else has closed it meanwhile.
            if not self._closed:
                raise UnreachableError(f"{self._what}: the connection broke ({_words(error)})") from error
        finally:
            self.close()

    def lines(self) -> Iterator[bytes]:
        """
        What comes, in whole lines without their ends.
        """
        rest = b""
        for piece in self.pieces():
            *whole, rest = (rest + piece).split(b"\n")
            yield from whole

    def close(self) -> None:
        """
        Have enough of it; also from another thread, while the first one waits for more.
        """
        self._closed = True
        with suppress(OSError, AttributeError, ValueError, RuntimeError):  # it has ended by itself
            _hang_up(self._response)
        with suppress(OSError, AttributeError, ValueError):
            self._response.close()


class Client:
    """
    An API server, and who we are to it.

    Args:
        kubeconfig: The path of a kubeconfig file; None for the usual ones, or for the pod's own account within a cluster.

        context: A context of the kubeconfig; None for the current one.

    Raises:
        MissingDependencyError: The package ``kubernetes`` is not installed.

        EngineError: There are no credentials, or they cannot be read.
    """

    def __init__(self, kubeconfig: str | None = None, context: str | None = None) -> None:
        self._kubeconfig = kubeconfig
        self._context = context
        self._lock = threading.Lock()
        #: (verb, group, resource) as a Role names them -> how often it was asked for.
        self.requests: Counter[tuple[str, str, str]] = Counter()
        #: How far the server's clock is ahead of ours, in seconds.
        self.skew = 0.0
        self._load()

    def _load(self) -> None:
        self._configuration = _configuration(self._kubeconfig, self._context)
        from kubernetes.client.rest import RESTClientObject

        self._pool = RESTClientObject(self._configuration).pool_manager
        # A watch may be silent for hours: the kernel then looks whether the other side is still there.
        self._pool.connection_pool_kw["socket_options"] = _keep_alive()
        self._host = str(self._configuration.host).rstrip("/")

    def _headers(self) -> dict[str, str]:
        try:
            with self._lock:  # a plug-in that fetches a new token runs once
                settings = self._configuration.auth_settings()
        except Exception as error:  # the package raises whatever it meets
            raise EngineError(f"the credentials for {self._host} cannot be renewed: {_words(error)}") from error
        found = {one["key"]: one["value"] for one in settings.values() if one["in"] == "header" and one["value"]}
        return {"Accept": "application/json", "User-Agent": "distrib", **found}

    # What is asked

    def get(self, kind: Kind, namespace: str, name: str) -> dict[str, Any]:
        """
        One object.
        """
        return self._json("get", kind, namespace, "GET", kind.path(namespace, name))

    def list(self, kind: Kind, namespace: str, **query: str) -> dict[str, Any]:
        """
        All objects that *query* selects, and the version of the list.
        """
        return self._json("list", kind, namespace, "GET", kind.path(namespace), query=query)

    def create(self, kind: Kind, namespace: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """
        Make an object. A field that the server does not know is refused: by itself it would leave it out without a word.
        """
        return self._json("create", kind, namespace, "POST", kind.path(namespace), query={"fieldValidation": "Strict"}, body=data)

    def patch(self, kind: Kind, namespace: str, name: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """
        Merge *data* into an object.
        """
        return self._json("patch", kind, namespace, "PATCH", kind.path(namespace, name), body=data, content="application/merge-patch+json")

    def delete(self, kind: Kind, namespace: str, name: str) -> None:
        """
        Delete an object, and in the background all that it owns; one that is gone already is no error.
        """
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        with absent_is_fine():
            self._json("delete", kind, namespace, "DELETE", kind.path(namespace, name), body=options)

    def delete_all(self, kind: Kind, namespace: str, selector: str, grace: int | None = None) -> None:
        """
        Delete all objects that the labels in *selector* select, with that many seconds of grace instead of their own.
        """
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        self._json("deletecollection", kind, namespace, "DELETE", kind.path(namespace), query={"labelSelector": selector}, body=options)

    def watch(self, kind: Kind, namespace: str, seconds: int, **query: str) -> Stream:
        """
        What changes, one line of JSON each, until the server ends it after *seconds*.
        """
        query = {**query, "watch": "1", "allowWatchBookmarks": "true", "timeoutSeconds": str(seconds)}
        return self._stream("watch", kind, kind.path(namespace), query)

    def log(self, namespace: str, pod: str, **query: str) -> Stream:
        """
        What a container of a pod has written.
        """
        return self._stream("get", attrs.evolve(PODS, plural="pods/log"), PODS.path(namespace, pod, "log"), query)

    # How it is asked

    def _json(
        self,
        verb: str,
        kind: Kind,
        namespace: str,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content: str = "application/json",
    ) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        what = f"{verb} {kind.plural} in {namespace}"
        response = self._ask(verb, kind, method, path, what=what, query=query, body=data, content=content, timeout=_ANSWER_SECONDS)
        try:
            return dict(json.loads(response.data))
        except (ValueError, TypeError) as error:  # from something in front of the server, or cut short
            raise UnreachableError(f"{what}: the answer of {self._host} is no API server's ({_words(error)})") from error

    def _stream(self, verb: str, kind: Kind, path: str, query: Mapping[str, str]) -> Stream:
        what = f"{verb} {path}"
        return Stream(self._ask(verb, kind, "GET", path, what=what, query=query, timeout=None), what)

    def _ask(
        self,
        verb: str,
        kind: Kind,
        method: str,
        path: str,
        *,
        what: str,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content: str = "application/json",
        timeout: float | None,
    ) -> Any:
        url = f"{path}{f'?{urlencode(query)}' if query else ''}"

        def send() -> Any:
            self.requests[verb, kind.group, kind.plural] += 1
            return self._send(method, url, what=what, body=body, content=content, timeout=timeout)

        response = send()
        if response.status == HTTPStatus.UNAUTHORIZED:  # the credentials have changed, or have expired before their time
            with self._lock:
                self._load()
            response = send()
        for _ in range(_MOST_TRIES - 1):
            if response.status != HTTPStatus.TOO_MANY_REQUESTS:
                break
            sleep(_asked_to_wait(response))
            response = send()
        if response.status >= HTTPStatus.MULTIPLE_CHOICES:  # the first that is no success
            raise _refusal(response, what)
        return response

    def _send(self, method: str, url: str, *, what: str, body: bytes | None, content: str, timeout: float | None) -> Any:
        import urllib3

        headers = {**self._headers(), **({"Content-Type": content} if body is not None else {})}
        try:
            response = self._pool.request(
                method,
                f"{self._host}{url}",
                headers=headers,
                body=body,
                preload_content=timeout is not None,
                timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=timeout),
                retries=False,
                redirect=False,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise UnreachableError(f"{what}: {self._host} cannot be reached ({_words(error)})") from error
        self._read_clock(response)
        return response

    def _read_clock(self, response: Any) -> None:
        with suppress(ValueError, TypeError):
            self.skew = parsedate_to_datetime(response.headers.get("Date")).timestamp() - time()


@contextmanager
def absent_is_fine() -> Iterator[None]:
    """
    Pass over an :class:`ApiError` that says that something does not exist.
    """
    try:
        yield
    except ApiError as error:
        if not error.is_absent:
            raise


def default_namespace(kubeconfig: str | None = None, context: str | None = None) -> str:
    """
    The namespace that the credentials are for: the context's, or the pod's own; else ``default``.
    """
    try:
        from kubernetes import config

        contexts, active = config.list_kube_config_contexts(config_file=kubeconfig or _places())
        chosen = next((one for one in contexts if one["name"] == context), active)
        return str(chosen["context"].get("namespace") or "default")
    except Exception:  # noqa: BLE001  # whatever is wrong with it is told when it is used
        with suppress(OSError):
            return (_ACCOUNT / "namespace").read_text(encoding="ascii").strip() or "default"
    return "default"


def _configuration(kubeconfig: str | None, context: str | None) -> Any:
    try:
        from kubernetes import client, config
    except ImportError as error:
        raise MissingDependencyError(
            "engine='kubernetes' needs the package 'kubernetes', which is not installed. "
            "Install it with: python -m pip install 'distrib[kubernetes]'",
            name="kubernetes",
        ) from error
    made = client.Configuration()
    made.connection_pool_maxsize = _MOST_KEPT
    try:
        if kubeconfig is None and not _has_kubeconfig() and "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config(client_configuration=made)
        else:
            config.load_kube_config(config_file=kubeconfig or _places(), context=context, client_configuration=made, persist_config=False)
    except Exception as error:  # the package raises whatever it meets
        where = f"kubeconfig={kubeconfig!r}, context={context!r}"
        raise EngineError(
            f"there are no credentials for a cluster ({where}): {_words(error).rstrip('.')}. Set KUBECONFIG or "
            "kubernetes={'kubeconfig': …} to a kubeconfig file, and try them with: kubectl get pods"
        ) from error
    return made


def _places() -> str:
    # Asked for here: the package looks at the variable when it is imported, and never again.
    return os.environ.get("KUBECONFIG") or "~/.kube/config"


def _has_kubeconfig() -> bool:
    return any(Path(place).expanduser().exists() for place in _places().split(os.pathsep) if place)


def _keep_alive() -> list[tuple[int, int, int]]:
    options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 6)):
        if hasattr(socket, name):  # not on every system
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return options


def _hang_up(response: Any) -> None:
    """
    Wake whoever waits for more of an answer. Without that, closing it would wait for him.
    """
    if hasattr(response, "shutdown"):  # since urllib3 2.3
        response.shutdown()
    else:  # the connection has let go of its socket if it is for one answer only
        response._fp.fp.raw._sock.shutdown(socket.SHUT_RDWR)  # noqa: SLF001  # has no other name


def _asked_to_wait(response: Any) -> float:
    """
    For how many seconds a server that has too much to do wants not to be asked. It has done nothing of what it was asked.
    """
    with suppress(Exception):  # of a stream, what is left of it would stay in the connection
        response.read()
    try:
        return max(0.0, min(_LONGEST_WAIT, float(response.headers.get("Retry-After", 1))))
    except ValueError:  # it may be a date
        return 1.0


def _refusal(response: Any, what: str) -> ApiError:
    with suppress(Exception):  # what cannot be read any more is not told
        response.read()
    data = bytes(response.data or b"")
    try:
        status = json.loads(data)
        said, reason = str(status["message"]), str(status.get("reason") or "")
    except (ValueError, TypeError, KeyError):  # not from an API server, but from something in front of it
        said, reason = data.decode(errors="backslashreplace")[:500] or str(response.reason), ""
    return ApiError(f"{what}: {said} ({response.status})", status=response.status, reason=reason, said=said)


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
