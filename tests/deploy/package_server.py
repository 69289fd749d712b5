"""A server of release archives and of a package index, which can be slow, break off, or be counted."""

import functools
import http.server
import pathlib
import re
import threading
import time


class PackageServer:
    """/NAME is a file of the folder; /simple/PROJECT/ lists that project's wheels, as PyPI does."""

    def __init__(self, folder: pathlib.Path, sums: dict[str, str]):
        self.folder, self.sums = folder, sums  # of wheels: file name -> sha256
        self.bytes_per_second = None
        self.break_after = None  # bytes of one answer; once
        self.requests: list[tuple[str, int]] = []  # path, first byte
        self.sent = 0
        handler = functools.partial(_Handler, self)
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.handle_error = lambda *_: None  # a client that was killed
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def index_page(self, project: str) -> str:
        """Links as the index has them: relative, with the sum behind the name."""
        name = re.compile(re.escape(project).replace(r"\-", "[-_]") + r"-\d", re.IGNORECASE)
        return "".join(f'<a href="../../{file}#sha256={sum_}" data-x="1">{file}</a><br/>\n'
                       for file, sum_ in self.sums.items() if name.match(file))


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, server: PackageServer, *args):
        self.packages = server
        super().__init__(*args)

    def log_message(self, *args):
        pass

    def do_GET(self):
        path = self.path
        if path.startswith("/simple/"):
            self.packages.requests.append((path, 0))
            return self.answer(200, self.packages.index_page(path.split("/")[2]).encode())
        file = self.packages.folder / path[1:]
        if "/" in path[1:] or not file.is_file():
            return self.answer(404, b"no such file")
        size, first = file.stat().st_size, 0
        if asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            first = int(asked.group(1))
        self.packages.requests.append((path, first))
        if first and first >= size:
            return self.answer(416, b"")
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(size - first))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
        self.end_headers()
        self.send_file(file, first)

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_file(self, file: pathlib.Path, first: int) -> None:
        slow, most, done = self.packages.bytes_per_second, self.packages.break_after, 0
        self.packages.break_after = None
        with open(file, "rb") as stream:
            stream.seek(first)
            while block := stream.read(slow // 20 if slow else 1 << 20):
                if most is not None and done + len(block) > most:
                    self.wfile.write(block[:most - done])
                    self.close_connection = True
                    return
                try:
                    self.wfile.write(block)
                except OSError:
                    return
                done += len(block)
                self.packages.sent += len(block)
                if slow:
                    time.sleep(0.05)
