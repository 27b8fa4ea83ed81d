"""A proxy on this machine that forwards requests to a server and loses the answers of some of them."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Loss = Literal["500", "reset"]
CREATES = {
    "/api/2.0/mlflow/experiments/create": "experiment",
    "/api/2.0/mlflow/runs/create": "run",
    "/api/2.0/mlflow/logged-models": "model",
}


class LosingProxy:
    """Carries every request out, and loses the first answers to each request that creates something.

    Args:
        port: of the server.
        loss: how: the answer 500 instead, or a connection that is reset.
    """

    def __init__(self, port: int, loss: Loss) -> None:
        self.port, self.loss = port, loss
        self.times = 1  # how many answers to the same request are lost
        self.lost: Counter[str] = Counter()  # by what was created
        self._seen: Counter[bytes] = Counter()
        self._lock = threading.Lock()

    def loses(self, method: str, path: str, body: bytes) -> bool:
        """Whether to lose the answer to this request; counts it."""
        kind = CREATES.get(path.partition("?")[0]) if method == "POST" else None
        if kind is None:
            return False
        with self._lock:
            self._seen[body] += 1
            if self._seen[body] > self.times:
                return False
            self.lost[kind] += 1
            return True


@contextmanager
def losing_proxy(port: int, loss: Loss) -> Iterator[tuple[LosingProxy, str]]:
    """Run a proxy before the server at this port; yield it and its address."""
    proxy = LosingProxy(port, loss)

    class Handler(BaseHTTPRequestHandler):
        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            whole = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=60)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _OWN}
            whole.request(self.command, self.path, body=body, headers=headers)
            answer = whole.getresponse()
            content = answer.read()
            whole.close()
            status = answer.status
            if proxy.loses(self.command, self.path, body):
                if proxy.loss == "reset":
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.connection.close()  # with this option the system resets the connection
                    self.close_connection = True
                    return
                status, content = 500, b"the answer is lost"
            self.send_response(status)
            self.send_header("Content-Type", answer.headers.get("Content-Type", "application/json"))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *words: object) -> None: ...

        def finish(self) -> None:
            if not self.connection._closed:  # type: ignore[attr-defined]
                super().finish()

    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        setattr(Handler, f"do_{method}", Handler.forward)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


_OWN = ("host", "connection", "content-length", "accept-encoding")
