"""What the fault tests of the whole service share: a `limner serve` to start and kill, a client, a webhook receiver."""

import base64
import collections
import hashlib
import hmac
import http.client
import http.server
import json
import os
import pathlib
import re
import secrets
import signal
import socket
import subprocess
import threading
import time

TERMINAL = {"completed", "blocked", "failed", "canceled", "expired"}
# The bundled model's smallest job.
SMALLEST = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 1}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition, seconds: float, what: str):
    """The first true value of condition(); an AssertionError that names what did not come."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"after {seconds} s: {what}"
        time.sleep(0.05)


class Service:
    """One data folder and the process that serves it. `key` and `client` are there after the first start."""

    def __init__(self, program: str, folder: pathlib.Path, **environment: str):
        self.program = program
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.process = None
        self.starts = 0
        self.longest_start = 0.0
        self.log_path = folder.parent / (folder.name + ".log")
        self.environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "LIMNER_THREADS": "1",
            "LIMNER_RATE_LIMIT": "off",
            "LIMNER_EGRESS_ALLOW": "127.0.0.0/8",
            **environment,
        }
        self.key = None

    def launch(self, **environment: str):
        """Starts the process and does not wait for it."""
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [self.program, "serve", "--data-dir", str(self.folder), "--port", str(self.port)],
                env={**self.environment, **environment}, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start(self, **environment: str):
        began = time.monotonic()
        self.launch(**environment)
        wait_until(self.ready, 60, f"no answer of /readyz; the log is {self.log_path}")
        self.starts += 1
        self.longest_start = max(self.longest_start, time.monotonic() - began)
        if self.key is None:
            self.key = self.new_key("ann")
        return self

    def ready(self) -> bool:
        code = self.process.poll()
        assert code is None, f"the server ended with {code}; the log is {self.log_path}"
        try:
            return self.client(key=None).request("GET", "/readyz").status == 200
        except OSError:
            return False

    def new_key(self, account: str, tier: str = "turbo") -> str:
        made = subprocess.run(
            [self.program, "key", "create", "--data-dir", str(self.folder), "--account", account, "--tier", tier,
             "--scopes", "generate,read,admin", "--json"],
            env=self.environment, check=True, capture_output=True, text=True)
        return json.loads(made.stdout)["key"]

    def printed_key(self) -> str | None:
        """The one that the first start shows."""
        found = re.search(r"^ +(lmn_\w+)$", self.log_path.read_text(errors="replace"), re.MULTILINE)
        return found and found[1]

    def client(self, **wishes) -> "Client":
        return Client(self.port, wishes.get("key", self.key))

    def kill(self):
        self.process.kill()
        self.process.wait()

    def signal(self, which: signal.Signals):
        self.process.send_signal(which)

    def stop(self):
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def log_tail(self) -> str:
        """What the log says of other things than requests."""
        lines = self.log_path.read_text(errors="replace").splitlines() if self.log_path.exists() else []
        return "\n".join([line for line in lines if '"message":"request"' not in line][-20:])


class Answer:
    def __init__(self, status: int, headers, body: bytes):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"{self.status} {self.body[:400]!r}"


class Client:
    def __init__(self, port: int, key: str | None):
        self.port, self.key = port, key

    def request(self, method: str, path: str, body=None, headers=None, timeout: float = 10) -> Answer:
        """OSError where no whole answer came."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            sent = dict(headers or {})
            if self.key:
                sent["Authorization"] = f"Bearer {self.key}"
            if body is not None:
                sent["Content-Type"] = "application/json"
                body = json.dumps(body)
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from error
        finally:
            connection.close()

    def submit(self, body: dict, idempotency_key: str) -> Answer:
        return self.request("POST", "/v1/generations", body, {"Idempotency-Key": idempotency_key})

    def get(self, job: str) -> dict:
        answer = self.request("GET", f"/v1/generations/{job}")
        assert answer.status == 200, f"the accepted job {job} is lost: {answer}"
        return answer.json

    def wait(self, job: str, seconds: float = 60) -> dict:
        def ended():
            shown = self.get(job)
            return shown if shown["status"] in TERMINAL else None

        return wait_until(ended, seconds, f"job {job} has not ended")

    def all_jobs(self) -> list[dict]:
        jobs, cursor = [], ""
        while True:
            page = self.request("GET", f"/v1/generations?limit=100{cursor}").json
            jobs += page["data"]
            if not page["next_cursor"]:
                return jobs
            cursor = f"&cursor={page['next_cursor']}"

    def check_pictures(self, shown: dict):
        """Each picture of a completed job is there, whole and the one that was named."""
        assert shown["images"], f"a completed job without pictures: {shown}"
        for image in [file for image in shown["images"] for file in [image, *image["thumbnails"]]]:
            path = "/" + image["url"].split("://", 1)[-1].split("/", 1)[1]
            answer = Client(self.port, None).request("GET", path)
            assert answer.status == 200, f"{image['url']}: {answer}"
            assert hashlib.sha256(answer.body).hexdigest() == image["sha256"], f"{image['url']} is another picture"


class Receiver:
    """Takes webhooks as Standard Webhooks 1.0.0 says. Every `refuse_each`-th is answered 503 after it was kept, or all
    are answered with `status`."""

    def __init__(self, refuse_each: int = 0):
        self.secret = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
        self.status = 204
        self.clock_skew = 300  # seconds that a message's timestamp may be wrong by
        self.lock = threading.Lock()
        self.signers = collections.Counter()  # messages by how many signatures they carried
        self.bodies = collections.defaultdict(set)  # by webhook-id
        self.moments = {}  # by webhook-id: what now() said when it came first
        self.now = lambda: 0
        self.taken = 0
        self.forged = []
        self.on_message = lambda: None
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                refuse = receiver.take(self.headers, body, refuse_each)
                receiver.on_message()
                status = 503 if refuse else receiver.status
                self.send_response_only(status)
                if status != 204:
                    self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass  # whoever sent was killed

        self.server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook"

    def take(self, headers, body: bytes, refuse_each: int) -> bool:
        identity, timestamp = headers["webhook-id"], headers["webhook-timestamp"]
        key = base64.b64decode(self.secret.removeprefix("whsec_"))
        signed = b".".join([identity.encode(), timestamp.encode(), body])
        wanted = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        with self.lock:
            if wanted not in headers["webhook-signature"].split() or abs(time.time() - int(timestamp)) > self.clock_skew:
                self.forged.append(identity)
            self.signers[len(headers["webhook-signature"].split())] += 1
            self.bodies[identity].add(body)
            self.moments.setdefault(identity, self.now())
            self.taken += 1
            return refuse_each > 0 and self.taken % refuse_each == 0

    def types(self) -> list[str]:
        with self.lock:
            return [json.loads(next(iter(bodies)))["type"] for bodies in self.bodies.values()]

    def ends(self) -> dict[str, list]:
        """The terminal messages of each job: (webhook-id, type)."""
        ends = collections.defaultdict(list)
        with self.lock:
            for identity, bodies in self.bodies.items():
                message = json.loads(next(iter(bodies)))
                event = message["type"].removeprefix("generation.")
                if event in TERMINAL:
                    ends[message["data"]["request_id"]].append((identity, event))
        return ends

    def begin_again(self, bodies: dict):
        """As if only these had come so far."""
        with self.lock:
            self.bodies = collections.defaultdict(set, bodies)

    def check(self):
        with self.lock:
            assert not self.forged, f"not signed as they should be: {self.forged}"
            for identity, bodies in self.bodies.items():
                assert len(bodies) == 1, f"{identity} came with {len(bodies)} different bodies"

    def close(self):
        self.server.shutdown()
        self.server.server_close()
