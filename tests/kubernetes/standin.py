"""
An API server that stands in for a real one: on loopback, over HTTP, with objects of any kind, versions, watches and logs.

kmock 0.8, the one kept library that serves arbitrary kinds over HTTP from Python, was tried first: it has no resource versions
(each watch begins with all objects), no selectors, no 410, no bookmarks and no logs, and what is tested here is just these.

Ways in which this one differs from a real server, and that mattered:

- Nothing runs: no controller makes pods, no kubelet starts them. Tests say what becomes of them, and thereby the order.
- Objects are neither checked nor defaulted; what a real server refuses is refused here where a test says so (:attr:`StandIn.refusals`).
- The garbage collector works at once; a real one takes up to seconds, and up to 30 for a kind that was just installed.
- Pods that are deleted are gone at once unless a test keeps them with :attr:`StandIn.lingering`.
- A bookmark comes when a test asks for it, not every minute.
- A real server may answer 403 or 404 for a moment after it was started.
- A real kubelet joins lines longer than 16 KiB from pieces; here a line is a line.
"""

from __future__ import annotations

import json
import re
import ssl
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

_SELECTOR = re.compile(r"([^!=]+)(!=|=)(.*)")


def now(seconds: float | None = None) -> str:
    """A time as Kubernetes writes it."""
    return datetime.fromtimestamp(time.time() if seconds is None else seconds, tz=timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def merge(data: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """A JSON merge patch."""
    merged = dict(data)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key) or {}, value) if isinstance(value, dict) else value
    return merged


class RefusedError(Exception):
    """What the server answers instead; *page* is what something in front of it says."""

    def __init__(self, code: int, reason: str = "", message: str = "", *, page: bytes | None = None) -> None:
        super().__init__(message)
        self.page = page
        self.status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "code": code,
            "reason": reason,
            "message": message,
        }


class StandIn:
    """The server, and what tests do to it; with TLS if it has a certificate."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.changed = threading.Condition()
        self.version = 100
        self.oldest = 0
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.history: list[tuple[int, str, str, dict[str, Any]]] = []
        #: (verb, plural) -> what to answer: each answer once, the last one for ever if it is in a tuple.
        self.refusals: dict[tuple[str, str], list[RefusedError]] = {}
        #: (verb, plural) of requests that get no answer for now.
        self.held: set[tuple[str, str]] = set()
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.tokens: set[str] | None = None
        self.is_down = False
        #: How many seconds its clock is ahead of ours.
        self.ahead = 0.0
        self.keeps_connections = True
        #: Pods that do not go away when they are deleted.
        self.lingering = False
        self.logs: dict[tuple[str, int], list[tuple[str, bytes]]] = {}
        #: Logs that nothing will be added to.
        self.complete: set[tuple[str, int]] = set()
        self.cuts = 0
        handler = type("Handler", (_Handler,), {"standin": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.port = int(self._server.server_address[1])
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.port}"
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.is_down = True
        self.cut()
        self._server.shutdown()
        self._server.server_close()
        for error in self._server.errors:
            raise error

    def kubeconfig(
        self, path: Path, user: dict[str, Any] | None = None, namespace: str = "default", others: Mapping[str, StandIn] | None = None
    ) -> str:
        """Write one that leads here, and by contexts of their names to *others*."""
        servers = {"here": self, **(others or {})}
        data = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "clusters": [{"name": name, "cluster": {"server": server.url}} for name, server in servers.items()],
            "users": [{"name": "me", "user": user or {}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": "me", "namespace": namespace}} for name in servers],
        }
        path.write_text(json.dumps(data), encoding="utf-8")
        return str(path)

    # Objects

    def put(self, collection: str, data: dict[str, Any]) -> dict[str, Any]:
        """Create or replace an object, whoever asked for it."""
        with self.changed:
            meta = data.setdefault("metadata", {})
            key = (collection, meta["name"])
            change = "MODIFIED" if key in self.objects else "ADDED"
            meta.setdefault("uid", str(uuid.uuid4()))
            meta.setdefault("creationTimestamp", now())
            return self._note(change, collection, data)

    def remove(self, collection: str, name: str) -> None:
        """Delete an object, and what it owns."""
        with self.changed:
            data = self.objects.pop((collection, name))
            self._note("DELETED", collection, data)
            uid = data["metadata"]["uid"]
            owned = [
                key
                for key, other in self.objects.items()
                if any(owner["uid"] == uid for owner in other["metadata"].get("ownerReferences", ()))
            ]
        for key in owned:
            if key in self.objects:
                self.remove(*key)

    def change(self, collection: str, name: str, patch: dict[str, Any]) -> dict[str, Any]:
        """Merge *patch* into an object."""
        with self.changed:
            return self._note("MODIFIED", collection, merge(self.objects[collection, name], patch))

    def _note(self, change: str, collection: str, data: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        data = json.loads(json.dumps(data))
        data["metadata"]["resourceVersion"] = str(self.version)
        if change != "DELETED":
            self.objects[collection, data["metadata"]["name"]] = data
        self.history.append((self.version, change, collection, data))
        self.changed.notify_all()
        return data

    def bookmark(self, collection: str) -> None:
        """Tell those who watch how far they are."""
        with self.changed:
            self.version += 1
            data = {"kind": "Bookmark", "metadata": {"resourceVersion": str(self.version), "name": ""}}
            self.history.append((self.version, "BOOKMARK", collection, data))
            self.changed.notify_all()

    def release(self) -> None:
        """Answer what was held."""
        with self.changed:
            self.held.clear()
            self.changed.notify_all()

    def compact(self) -> None:
        """Forget what has been: who wants to go on from there has to list."""
        with self.changed:
            self.oldest = self.version

    def cut(self) -> None:
        """Break all connections that wait for something."""
        with self.changed:
            self.cuts += 1
            self.changed.notify_all()

    def write(self, pod: str, *lines: bytes, number: int = 0, stamp: str | None = None, end: bytes = b"\n") -> None:
        """Have a container write."""
        with self.changed:
            log = self.logs.setdefault((pod, number), [])
            for line in lines:
                at = stamp or datetime.now(tz=timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
                log.append((at, line + end))
            self.changed.notify_all()

    def finish(self, pod: str, number: int = 0) -> None:
        """Have a container write no more."""
        with self.changed:
            self.logs.setdefault((pod, number), [])
            self.complete.add((pod, number))
            self.changed.notify_all()

    def asked(self) -> Counter[tuple[str, str]]:
        """(verb, plural) -> how often it was asked for."""
        return Counter(
            (verb, path.rpartition("/")[2] if verb in ("list", "watch", "create") else plural_of(path)) for verb, path, _ in self.requests
        )

    # What handlers do

    def check(self, verb: str, path: str, token: str) -> None:
        if self.tokens is not None and token not in self.tokens:
            raise RefusedError(401, "Unauthorized", "Unauthorized")
        waiting = self.refusals.get((verb, plural_of(path)))
        if waiting:
            raise waiting.pop(0) if len(waiting) > 1 or not getattr(waiting[0], "for_ever", False) else waiting[0]

    def selected(self, collection: str, query: dict[str, str]) -> list[dict[str, Any]]:
        return [data for (where, _), data in self.objects.items() if where == collection and _is_selected(data, query)]

    def log_of(self, pod: str, query: dict[str, str]) -> Iterator[bytes | None]:
        """The pieces of a log; None where there is nothing for now."""
        status = next(data for (where, name), data in self.objects.items() if where.endswith("/pods") and name == pod).get("status", {})
        found = next((one for one in status.get("containerStatuses", ()) if one["name"] == query.get("container")), None)
        waits = found is None or "waiting" in (found.get("state") or {"waiting": {}})
        if waits and not query.get("previous"):
            raise RefusedError(
                400, "BadRequest", f'container "{query.get("container")}" in pod "{pod}" is waiting to start: ContainerCreating'
            )
        number = int((found or {}).get("restartCount", 0)) - (1 if query.get("previous") else 0)
        return self._lines(pod, number, query)

    def _lines(self, pod: str, number: int, query: dict[str, str]) -> Iterator[bytes | None]:
        at, begins = 0, True
        while True:
            with self.changed:
                log = self.logs.get((pod, number), [])[at:]
                done = (pod, number) in self.complete or not query.get("follow")
            for stamp, line in log:
                at += 1
                # The kubelet is asked by the second.
                if stamp[:19] >= query.get("sinceTime", "")[:19]:
                    yield (f"{stamp} ".encode() if query.get("timestamps") and begins else b"") + line
                    begins = line.endswith(b"\n")
            if done:
                return
            yield None


def plural_of(path: str) -> str:
    """What a path is about."""
    parts = path.strip("/").split("/")
    rest = parts[parts.index("namespaces") + 2 :] if "namespaces" in parts else parts[-1:]
    return "/".join(rest[::2]) if len(rest) == 3 else rest[0]


def _is_selected(data: dict[str, Any], query: dict[str, str]) -> bool:
    labels = data["metadata"].get("labels") or {}
    for selector, values in (("labelSelector", labels), ("fieldSelector", data)):
        if query.get(selector):
            match = _SELECTOR.match(query[selector])
            if match is None:
                if query[selector] not in values:
                    return False
            elif (values.get(match[1]) == match[3]) != (match[2] == "="):
                return False
    return True


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.errors: list[BaseException] = []

    def handle_error(self, *_args: Any) -> None:
        error = sys.exc_info()[1]
        # Clients hang up as they like; anything else is a fault of the stand-in, and is raised when it is closed.
        if error is not None and not isinstance(error, OSError):
            self.errors.append(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    standin: StandIn

    def log_message(self, *args: Any) -> None:
        pass

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string((timestamp or time.time()) + self.standin.ahead)

    def _do(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        if self.standin.is_down:
            self.close_connection = True
            return
        verb = self._verb(parts.path, query)
        with self.standin.changed:  # whoever sees the request and cuts the connections means this one too
            self.cuts = self.standin.cuts
            self.standin.requests.append((verb, parts.path, query))
            what = (verb, plural_of(parts.path))
            self.standin.changed.wait_for(lambda: what not in self.standin.held or self.standin.is_down)
        try:
            self.standin.check(verb, parts.path, self.headers.get("Authorization", ""))
            getattr(self, f"_{verb}")(parts.path, query, body)
        except RefusedError as error:
            self._answer(error.status if error.page is None else error.page, error.status["code"])
        except KeyError as error:
            name = error.args[0][1] if isinstance(error.args[0], tuple) else parts.path
            message = f'{plural_of(parts.path)} "{name}" not found'
            self._answer({"kind": "Status", "reason": "NotFound", "message": message, "code": 404}, 404)
        except OSError:
            self.close_connection = True

    do_GET = do_POST = do_PATCH = do_DELETE = _do  # noqa: N815  # as http.server wants them to be called

    def _verb(self, path: str, query: dict[str, str]) -> str:
        parts = path.strip("/").split("/")
        named = len(parts[parts.index("namespaces") + 2 :]) > 1 if "namespaces" in parts else False
        if self.command == "GET":
            return "watch" if query.get("watch") else "log" if path.endswith("/log") else "get" if named else "list"
        return {"POST": "create", "PATCH": "patch", "DELETE": "delete" if named else "deletecollection"}[self.command]

    def _answer(self, data: dict[str, Any] | bytes, code: int = 200) -> None:
        body = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _list(self, path: str, query: dict[str, str], body: dict[str, Any]) -> None:
        with self.standin.changed:
            found = self.standin.selected(path, query)
            version = str(self.standin.version)
        self._answer({"kind": "List", "metadata": {"resourceVersion": version}, "items": found})

    def _get(self, path: str, query: dict[str, str], body: dict[str, Any]) -> None:
        collection, _, name = path.rpartition("/")
        self._answer(self.standin.objects[collection, name])

    def _create(self, path: str, query: dict[str, str], body: dict[str, Any]) -> None:
        with self.standin.changed:
            name = body["metadata"]["name"]
            if (path, name) in self.standin.objects:
                raise RefusedError(409, "AlreadyExists", f'{plural_of(path)} "{name}" already exists')
            made = self.standin.put(path, body)
        self._answer(made, 201)

    def _patch(self, path: str, query: dict[str, str], body: dict[str, Any]) -> None:
        collection, _, name = path.rpartition("/")
        self._answer(self.standin.change(collection, name, body))

    def _delete(self, path: str, query: dict[str, str], body: dict[str, Any]) -> None:
        collection, _, name = path.rpartition("/")
        self.standin.remove(collection, name)
        self._answer({"kind": "Status", "status": "Success"})

    def _deletecollection(self, path: str, query: dict[str, str], body: dict[str, Any]) -> None:
        if not self.standin.lingering or body.get("gracePeriodSeconds") == 0:
            for data in self.standin.selected(path, query):
                self.standin.remove(path, data["metadata"]["name"])
        self._answer({"kind": "Status", "status": "Success"})

    def _watch(self, path: str, query: dict[str, str], body: dict[str, Any]) -> None:
        standin, seen = self.standin, int(query["resourceVersion"])
        if seen < standin.oldest:
            raise RefusedError(410, "Expired", f"too old resource version: {seen} ({standin.oldest})")
        until = time.monotonic() + float(query["timeoutSeconds"])

        def news() -> Iterator[bytes | None]:
            nonlocal seen
            while time.monotonic() < until:
                with standin.changed:
                    new = [entry for entry in standin.history if entry[0] > seen]
                for version, change, collection, data in new:
                    seen = version
                    if collection == path and (change == "BOOKMARK" or _is_selected(data, query)):
                        yield json.dumps({"type": change, "object": data}).encode() + b"\n"
                yield None

        self._stream(news())

    def _log(self, path: str, query: dict[str, str], body: dict[str, Any]) -> None:
        pod = path.split("/")[-2]
        if not any(name == pod and where.endswith("/pods") for where, name in self.standin.objects):
            raise RefusedError(404, "NotFound", f'pods "{pod}" not found')
        self._stream(self.standin.log_of(pod, query))

    def _stream(self, pieces: Iterator[bytes | None]) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        if not self.standin.keeps_connections:
            self.send_header("Connection", "close")
        self.end_headers()
        for piece in pieces:
            if self.standin.cuts != self.cuts:  # in the middle of the answer, as a broken connection does
                self.close_connection = True
                return
            if piece is None:
                with self.standin.changed:
                    if self.standin.cuts == self.cuts:
                        self.standin.changed.wait(0.02)
            elif piece:
                self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")


def eventually(fact: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Wait for a fact."""
    until = time.monotonic() + seconds
    while not (found := fact()):
        assert time.monotonic() < until, "it has not come to pass"
        time.sleep(0.005)
    return found
