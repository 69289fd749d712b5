"""An HTTPS server that does everything wrong that a file server can do, for downloads_test.cpp. Standard library only.

    python3 https_server.py CERTIFICATE KEY [FOLDER]

Prints one line: the ports of https on 127.0.0.1 and on 127.0.0.2, then on 127.0.0.1 of a second https, of plain http and of
a third https. Ends when its standard input does. The first part of the path says what happens, the second how many bytes of data the
file has (8 + a header + that many bytes of data); further parts are the behaviour's own. /log tells what was asked.
/files/NAME is a file of FOLDER. It also stands in for a model hub (repositories owner/model, owner/slow, owner/wrong) and for Civitai (version 7).
"""

import hashlib
import http.server
import json
import pathlib
import ssl
import sys
import threading
import time
import urllib.parse
import zlib

# The same bytes as in downloads_test.cpp; the period is a prime, so that a misplaced piece shows.
PERIOD = 65521
PATTERN = bytes((((i * i) >> 3) * 31 + i * 7 + 3) & 255 for i in range(PERIOD))

lock = threading.Lock()
log: list[dict] = []
connections: dict[str, int] = {}
counts: dict[str, int] = {}
ports: dict[str, int] = {}


def safetensors(size: int, shift: int = 0) -> bytes:
    header = json.dumps({"x": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    pattern = PATTERN[shift:] + PATTERN[:shift]
    return len(header).to_bytes(8, "little") + header + (pattern * (size // PERIOD + 1))[:size]


def repository() -> dict[str, bytes]:
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"],
             "vae": ["diffusers", "AutoencoderKL"], "safety_checker": [None, None]}
    return {"README.md": b"# a model", "model_index.json": json.dumps(index).encode(),
            "unet/config.json": b"{}", "unet/diffusion_pytorch_model.safetensors": safetensors(400_000),
            "unet/diffusion_pytorch_model.fp16.safetensors": safetensors(200_000),
            "unet/diffusion_pytorch_model.bin": b"\x80\x02", "vae/config.json": b"{}",
            "vae/diffusion_pytorch_model.safetensors": safetensors(100_000, 3)}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        if isinstance(self.request, ssl.SSLSocket):
            self.request.settimeout(20)
            self.request.do_handshake()
        super().setup()

    def log_message(self, *_):
        pass

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        parts = url.path.strip("/").split("/")
        with lock:
            counts[self.path] = counts.get(self.path, 0) + 1
            self.count = counts[self.path]
            if parts[0] != "log":
                log.append({"server": self.server.name, "path": self.path, "headers": dict(self.headers)})
        self.query = dict(urllib.parse.parse_qsl(url.query))
        behaviour = getattr(self, "do_" + parts[0], None)
        if behaviour is None:
            self.answer(b"", status=404)
        else:
            behaviour(*[int(p) for p in parts[1:] if p.isdigit()])

    def answer(self, body: bytes, status: int = 200, length: int | None = None, **headers: str):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def hang_up(self):
        self.wfile.flush()
        self.close_connection = True

    def wanted_range(self, total: int, etag: str) -> tuple[int, int] | None:
        """What Range asks for, as the half-open [begin, end); nothing where the whole file is to be sent."""
        text = self.headers.get("Range")
        if text is None or self.headers.get("If-Range", etag) != etag:
            return None
        begin, end = text.removeprefix("bytes=").split("-")
        return int(begin), min(int(end) + 1 if end else total, total)

    def serve(self, body: bytes, etag: str = '"v1"', most: int | None = None, pause: float = 0.0, shown: int = 0):
        """A good server, but for: `most` bytes per answer and then the line goes dead; a pause per 16 KiB; a
        Content-Range that is `shown` off."""
        wanted = self.wanted_range(len(body), etag)
        begin, end = wanted or (0, len(body))
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {begin + shown}-{end - 1 + shown}/{len(body)}")
        self.send_header("Content-Length", str(end - begin))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", etag)
        self.end_headers()
        if most is not None and end - begin > most:
            self.wfile.write(body[begin:begin + most])
            self.hang_up()
            return
        step = 16384 if pause else len(body) + 1
        for at in range(begin, end, step):
            self.wfile.write(body[at:min(at + step, end)])
            time.sleep(pause)

    # good ones
    def do_plain(self, size):
        self.serve(safetensors(size))

    def do_files(self, *_):
        file = pathlib.Path(sys.argv[3]) / pathlib.PurePosixPath(urllib.parse.urlsplit(self.path).path).name
        if file.is_file():
            self.serve(file.read_bytes())
        else:
            self.answer(b"", status=404)

    def do_chunked(self, size):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        body = safetensors(size)
        for at in range(0, len(body), 10000):
            piece = body[at:at + 10000]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def do_text(self, size):
        self.answer(b"x" * size)

    def do_echo(self):
        self.answer(json.dumps(dict(self.headers)).encode())

    def do_log(self):
        with lock:
            self.answer(json.dumps({"requests": log, "connections": connections}).encode())

    # a hub and Civitai; both want their own key and send the file from elsewhere
    def wants_key(self, key: str) -> bool:
        if self.headers.get("Authorization") == "Bearer " + key:
            return False
        self.answer(b"who are you?", status=401)
        return True

    def do_api(self, *_):
        path = urllib.parse.urlsplit(self.path).path
        if path.startswith("/api/models/owner/"):
            if self.wants_key("hub-key"):
                return
            siblings = []
            for name, body in repository().items():
                entry = {"rfilename": name, "size": len(body)}
                if name.endswith(".safetensors"):
                    wrong = b"x" if "/wrong/" in path and name.startswith("vae") else b""
                    entry["lfs"] = {"sha256": hashlib.sha256(body + wrong).hexdigest(), "size": len(body)}
                siblings.append(entry)
            self.answer(json.dumps({"sha": "c0ffee", "siblings": siblings}).encode())
        elif path == "/api/v1/model-versions/7":
            body = safetensors(50_000)
            here = f"https://127.0.0.1:{self.server.server_address[1]}"
            self.answer(json.dumps({"files": [{
                "name": "a style.safetensors", "type": "Model", "primary": True, "metadata": {"format": "SafeTensor"},
                "hashes": {"SHA256": hashlib.sha256(body).hexdigest().upper()},
                "downloadUrl": here + "/api/download/models/7"}]}).encode())
        elif path != "/api/download/models/7":
            self.answer(b"", status=404)
        elif not self.wants_key("civitai-key"):
            self.answer(b"", status=307, Location=f"https://127.0.0.1:{ports['main']}/plain/50000")

    def do_owner(self, *_):
        _, _, model, _, _, *path = self.path.split("/")
        if self.wants_key("hub-key"):
            return
        name = "/".join(path)
        if name.endswith(".safetensors"):
            self.answer(b"", status=302, Location=f"https://127.0.0.1:{ports['cdn']}/cdn/{model}/{name}")
        else:
            self.answer(repository()[name])

    def do_cdn(self, *_):
        _, _, model, *path = self.path.split("/")
        self.serve(repository()["/".join(path)], pause=0.05 if model == "slow" else 0)

    # bad ones
    def do_noranges(self, size):
        self.answer(safetensors(size), ETag='"v1"')

    def do_claimsranges(self, size):
        self.answer(safetensors(size), ETag='"v1"', Accept_Ranges="bytes")

    def do_wrongrange(self, size):
        self.serve(safetensors(size), shown=0 if self.count % 2 else 1000, most=100_000 if self.count == 1 else None)

    def do_cut(self, size, most):
        self.serve(safetensors(size), most=most)

    def do_cutnoranges(self, size, most):
        body = safetensors(size)
        self.answer(body[:most], length=len(body))
        self.hang_up()

    def do_paced(self, size):
        self.serve(safetensors(size), pause=0.02)

    def do_one(self, size):
        """One connection at a time; the others are turned away."""
        with lock:
            busy = counts.get("one", 0)
            counts["one"] = busy + 1
        try:
            if busy:
                self.answer(b"", status=503)
            else:
                self.serve(safetensors(size), pause=0.01)
        finally:
            with lock:
                counts["one"] -= 1

    def do_short(self, size):
        body = safetensors(size)
        self.answer(body, length=len(body) + 1000)
        self.hang_up()

    def do_long(self, size):
        body = safetensors(size)
        self.answer(body, length=len(body) - 1000, ETag='"v1"')
        self.hang_up()

    def do_changes(self, size):
        first = self.count == 1
        self.serve(safetensors(size, 0 if first else 7), etag='"v1"' if first else '"v2"',
                   most=size // 2 if first else None)

    def do_changesunderway(self, size):
        later = "Range" in self.headers or self.count > 1
        self.serve(safetensors(size, 7 if later else 0), etag='"v2"' if later else '"v1"', pause=0 if later else 0.02)

    def do_stall(self, size):
        self.answer(safetensors(size)[:100], length=size)
        self.wfile.flush()
        time.sleep(5)
        self.hang_up()

    def do_mute(self):
        time.sleep(5)
        self.hang_up()

    def do_trickle(self, size):
        body = safetensors(size)
        self.answer(b"", length=len(body))
        for at in range(60):
            self.wfile.write(body[at:at + 1])
            self.wfile.flush()
            time.sleep(0.1)
        self.hang_up()

    def do_gzip(self, size):
        packer = zlib.compressobj(wbits=31)
        self.answer(packer.compress(bytes(size)) + packer.flush(), Content_Encoding="gzip")

    def do_transfergzip(self, size):
        packer = zlib.compressobj(wbits=31)
        self.send_response(200)
        self.send_header("Transfer-Encoding", "gzip, chunked")
        self.end_headers()
        body = packer.compress(bytes(size)) + packer.flush()
        self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))

    def do_endless(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"%x\r\n" % 100 + safetensors(1 << 20)[:100] + b"\r\n")
        while True:
            self.wfile.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")

    def do_huge(self):
        self.answer(safetensors(1000), length=1 << 60)
        self.hang_up()

    def do_headers(self):
        self.answer(b"", **{f"X-{i}": "y" * 1000 for i in range(90)})

    def do_zip(self):
        self.answer(b"PK\x03\x04" + bytes(1000))

    def do_pickle(self):
        self.answer(b"\x80\x02}q\x00X\x05\x00\x00\x00" + bytes(1000))

    def do_html(self):
        self.answer(b"<!DOCTYPE html><title>Log in</title>" + b" " * 1000, Content_Type="text/html; charset=utf-8")

    def do_hiddenhtml(self):
        self.answer(b"\r\n <html><title>Log in</title>" + b" " * 1000, Content_Type="application/octet-stream")

    def do_error(self):
        self.answer(b'{"error": "this model needs a login"}' + b" " * 1000)

    def do_tiny(self):
        self.answer(b"oops")

    def do_nothing(self):
        self.answer(b"")

    def do_headerbomb(self):
        header = b"{" + b'"a":[' * 2_000_000
        self.answer(len(header).to_bytes(8, "little") + header)

    def do_status(self, code, times, size):
        if self.count <= times:
            self.answer(b"", status=code, **({"Retry-After": "1"} if code == 429 else {}))
        else:
            self.serve(safetensors(size))

    def do_later(self, seconds):
        self.answer(b"", status=429, Retry_After=str(seconds))

    def do_redirect(self, code=302):
        self.answer(b"", status=code, Location=self.query["to"])

    def do_chain(self, left, size):
        if left:
            self.answer(b"", status=307, Location=f"/chain/{left - 1}/{size}")
        else:
            self.serve(safetensors(size))

    def do_loop(self):
        self.answer(b"", status=301, Location="/loop")

    def do_unplaced(self):
        self.answer(b"", status=302)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, name: str, address: str, context: ssl.SSLContext | None):
        super().__init__((address, 0), Handler)
        self.name, self.context = name, context
        connections[name] = 0

    def get_request(self):
        request, address = super().get_request()
        with lock:
            connections[self.name] += 1
        if self.context is not None:
            request = self.context.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
        return request, address

    def handle_error(self, request, client_address):
        pass  # clients that hang up are what the tests are about


def main() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    servers = [Server("main", "127.0.0.1", context), Server("forbidden", "127.0.0.2", context),
               Server("other", "127.0.0.1", context), Server("plain", "127.0.0.1", None),
               Server("cdn", "127.0.0.1", context)]
    for server in servers:
        ports[server.name] = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
    # At once: the reader hangs up when it has the ports it wants.
    sys.stdout.write(" ".join(str(server.server_address[1]) for server in servers) + "\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
