"""An HTTP proxy to one server that misbehaves when told to.

`POST /__faults?kind,kind,...` queues faults; each later request takes one. Kinds: `ok`; `500` and `503` (answered
here); `reset` (the connection is reset before the request is passed on); `lost` (passed on, the answer lost); `half`
(the answer's head and half of its body, then a reset); `corrupt` (one byte of the answer's body changed); `damaged`
(one byte of the request's body changed before it is passed on); `slow:SECONDS` (passed on only then) and
`late:SECONDS` (answered only then). `POST /__storm?share=0.3&seed=1` gives that share of all requests one of them by
chance, until faults are queued again. `GET /__count` answers how many requests and how many new connections came since
the last of these.
"""

import http.client
import http.server
import random
import socket
import struct
import threading
import time
import urllib.parse

STORM = ["500", "503", "reset", "lost", "half", "corrupt", "damaged", "slow:0.05", "late:0.05"]


class QuietServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_):
        """A client that hangs up is part of the tests."""


def serve(handler: type) -> int:
    """Serves on a free port of this machine until the program ends; the port."""
    server = QuietServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


class FaultProxy:
    def __init__(self, target: tuple[str, int]):
        self.target = target
        self.lock = threading.Lock()
        self.expect([])  # by lock, all that it sets
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                with proxy.lock:
                    proxy.connections += 1

            def handle_any(self):
                proxy.handle(self)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any

            def log_message(self, *_):
                pass

        self.port = serve(Handler)
        self.url = f"http://127.0.0.1:{self.port}"

    def expect(self, faults: list[str], share: float = 0, seed: int = 0, kinds: list[str] = STORM) -> None:
        self.faults, self.share, self.random, self.kinds = faults, share, random.Random(seed), kinds
        self.requests = self.connections = 0

    def take(self) -> str:
        with self.lock:
            self.requests += 1
            if self.faults:
                return self.faults.pop(0)
            return self.random.choice(self.kinds) if self.random.random() < self.share else "ok"

    def control(self, request) -> None:
        path, _, query = request.path.partition("?")
        with self.lock:
            if path == "/__faults":
                self.expect([kind for kind in query.split(",") if kind])
            elif path == "/__storm":
                wanted = dict(urllib.parse.parse_qsl(query))
                self.expect([], float(wanted["share"]), int(wanted["seed"]))
            body = f"{self.requests} {self.connections}".encode()
        answer(request, 200, [], body)

    def handle(self, request) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if request.path.startswith("/__"):
            self.control(request)
            return
        kind = self.take()
        if kind.startswith("slow:"):
            time.sleep(float(kind.partition(":")[2]))
        if kind == "reset":
            reset(request)
        elif kind in ("500", "503"):
            answer(request, int(kind), [], b"<Error><Code>InternalError</Code><Message>chosen</Message></Error>")
        else:
            self.forward(request, changed(body) if kind == "damaged" else body, kind)

    def forward(self, request, body: bytes, kind: str) -> None:
        upstream = http.client.HTTPConnection(*self.target, timeout=30)
        upstream.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
        for name, value in request.headers.items():
            upstream.putheader(name, value)
        upstream.endheaders(body or None)
        reply = upstream.getresponse()
        content = reply.read()
        headers = [(n, v) for n, v in reply.getheaders() if n.lower() not in ("transfer-encoding", "connection")]
        upstream.close()
        if kind.startswith("late:"):
            time.sleep(float(kind.partition(":")[2]))
        if kind == "lost":
            reset(request)
        elif kind == "half":
            answer(request, reply.status, headers, content[: len(content) // 2], length=len(content))
            reset(request)
        else:
            answer(request, reply.status, headers, changed(content) if kind == "corrupt" else content)


def changed(body: bytes) -> bytes:
    return bytes([body[0] ^ 1]) + body[1:] if body else body


def answer(request, status: int, headers, body: bytes, length: int | None = None) -> None:
    request.send_response_only(status)
    named = {name.lower() for name, _ in headers}
    for name, value in headers:
        request.send_header(name, value)
    if "content-length" not in named and status != 204:
        request.send_header("Content-Length", str(len(body) if length is None else length))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)
        request.wfile.flush()


def reset(request) -> None:
    """Closes with a TCP reset instead of an orderly end."""
    request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.close_connection = True
    request.connection.close()
    # What the handler flushes afterwards goes nowhere.
    request.wfile = open("/dev/null", "wb")
