"""A local web server that serves files well, or in one of the ways in which servers fail."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FAULTS = (
    "missing",  # 404
    "broken",  # 500
    "breaks-off",  # half of the promised body, then the connection ends
    "resets",  # the connection ends before any answer
    "promises-less",  # Content-Length is half of the body
    "bad-length",  # Content-Length is no number
    "breaks-chunks",  # chunked, without the end
    "wrong",  # one bit flipped
    "empty",  # status 200 and no body
    "page",  # a page in place of the file, status 200
    "stalls",  # half of the body, then nothing
    "circles",  # redirects to itself
    "says-packed",  # Content-Encoding gzip, but the body is not
)


@contextmanager
def serve(files: Mapping[str, bytes]) -> Iterator[str]:
    """Serve files by name.

    Args:
        files: content by the last part of the path.

    Yields:
        The address of the server. `<address>/good/<anything>/<name>` gives a file; a word of `FAULTS` in place of
        `good` gives that fault; `packed` sends gzip as Content-Encoding to whoever accepts it, `packs` to
        everybody, `chunks` sends in pieces and no length, `moved` redirects to `good`.
    """
    stopped = threading.Event()

    class Handler(_Handler):
        content = files
        stop = stopped

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        stopped.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """Answers one request as its first folder says."""

    protocol_version = "HTTP/1.1"
    content: Mapping[str, bytes]
    stop: threading.Event

    def do_GET(self) -> None:
        how, name = self.path.split("/")[1], self.path.rpartition("/")[2]
        body = self.content.get(name)
        self.close_connection = True
        if how == "missing" or body is None:
            self._answer(404, b"not here")
        elif how == "broken":
            self._answer(500, b"sorry")
        elif how == "circles":
            self._answer(302, b"", {"Location": self.path})
        elif how == "moved":
            self._answer(302, b"", {"Location": self.path.replace("moved", "good", 1)})
        elif how == "wrong":
            self._answer(200, bytes([body[0] ^ 1]) + body[1:])
        elif how == "empty":
            self._answer(200, b"")
        elif how == "page":
            self._answer(200, b"<!doctype html><title>Log in</title>")
        elif how == "packs" or (how == "packed" and "gzip" in self.headers.get("Accept-Encoding", "")):
            self._answer(200, gzip.compress(body), {"Content-Encoding": "gzip"})
        elif how == "says-packed":
            self._answer(200, body, {"Content-Encoding": "gzip"})
        elif how in ("breaks-off", "stalls"):
            self._answer(200, body[: len(body) // 2], {"Content-Length": str(len(body))})
            if how == "stalls":
                self.stop.wait(10)
        elif how == "promises-less":
            self._answer(200, body, {"Content-Length": str(len(body) // 2)})
        elif how == "bad-length":
            self._answer(200, body, {"Content-Length": "plenty"})
        elif how == "breaks-chunks":
            self._answer(200, b"%x\r\n" % len(body) + body[:-1], {"Transfer-Encoding": "chunked"})
        elif how == "chunks":
            self._answer(200, b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n", {"Transfer-Encoding": "chunked"})
        elif how != "resets":
            self._answer(200, body)

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        sent = {"Content-Length": str(len(body)), "Connection": "close", **(headers or {})}
        if "Transfer-Encoding" in sent:
            del sent["Content-Length"]
        for name, value in sent.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        pass
