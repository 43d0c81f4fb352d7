"""
Buckets as S3 has them, on loopback: as much of the protocol as it takes to write objects, to look whether they are there, and to read them.

moto's server, the one well-kept one from Python, wants thirty packages more, and another botocore than s3fs does.
"""

from __future__ import annotations

import re
import threading
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class Buckets:
    """
    The server, and what it holds.
    """

    def __init__(self) -> None:
        #: Bucket and key, as ``/bucket/key`` -> what is there. One bucket is.
        self.objects: dict[str, bytes] = {"/bucket": b""}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"buckets": self}))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        """
        What leads Amazon's own client here.
        """
        url = f"http://127.0.0.1:{self._server.server_address[1]}"
        words = {"ACCESS_KEY_ID": "me", "SECRET_ACCESS_KEY": "secret", "DEFAULT_REGION": "here", "ENDPOINT_URL": url}
        # Otherwise it cuts what it writes into pieces with a sum behind each.
        return {f"AWS_{name}": value for name, value in {**words, "REQUEST_CHECKSUM_CALCULATION": "when_required"}.items()}

    def close(self) -> None:
        """
        End it.
        """
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    buckets: Buckets

    def log_message(self, *args: object) -> None:
        pass

    @property
    def _key(self) -> str:
        return unquote(urlsplit(self.path).path)

    def do_PUT(self) -> None:
        self.buckets.objects[self._key] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200)

    def do_GET(self) -> None:
        data = self.buckets.objects.get(self._key)
        if data is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>" if self.command == "GET" else b"")
            return
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        if asked is None:
            self._answer(200, data)
        else:
            begin, end = int(asked[1]), int(asked[2] or len(data) - 1)
            self._answer(206, data[begin : end + 1], {"Content-Range": f"bytes {begin}-{end}/{len(data)}"})

    do_HEAD = do_GET  # noqa: N815  # as http.server wants them to be called

    def _answer(self, code: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        etag = f'"{md5(body, usedforsecurity=False).hexdigest()}"'
        for name, value in {"Content-Length": str(len(body)), "ETag": etag, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
