"""RunPod's control plane as a serverless worker and a client of an endpoint see it; one endpoint, held in memory.

The worker's side is what runpod-python 1.12.0 asks for (job-take, job-take-batch, job-done, job-stream, job-stop,
ping); the client's side is what docs.runpod.io describes (run, runsync, status, stream, cancel, retry, purge-queue,
health). Faults are ordered by the test, and every exchange of the worker's side is kept for comparison. Left out: rate
limits, webhooks to clients, and the recycling of workers; that a worker is gone is for the test to say (`worker_lost`).
"""

import collections
import http.server
import json
import re
import select
import socket
import struct
import threading
import time
import urllib.parse
import uuid

from plane_types import CLIENT_KEY, ENDPOINT, FINAL, GPU, GRACE, WORKER_KEY, Exchange, Fault, Job, Refused, Storm


class ControlPlane:
    """All methods may be called from any thread. `hold` is how long an idle long poll stays open, in seconds; without
    `tracing` no exchange is kept."""

    def __init__(self, hold: float = 1.0, result_limit: int | None = None, tracing: bool = True):
        self.hold, self.result_limit, self.tracing = hold, result_limit, tracing
        self.jobs: dict[str, Job] = {}
        self.queue: collections.deque[str] = collections.deque()
        self.stops: dict[str, list[str]] = collections.defaultdict(list)
        self.workers: dict[str, float] = {}  # when each was last heard
        self.recycled: list[str] = []  # workers whose result said stopPod
        self.unhealthy: dict[str, dict] = {}
        self.faults: list[Fault] = []
        self.storm: Storm | None = None
        self.trace: list[Exchange] = []
        self.retried = self.strays = 0  # strays: results of jobs that are not known
        self.changed = threading.Condition()
        self.began = time.monotonic()
        self.closing = False
        self.server = Server(self)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        with self.changed:
            self.closing = True
            self.changed.notify_all()
        self.server.shutdown()
        self.server.server_close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def environment(self, worker: str) -> dict[str, str]:
        """What the platform sets in a worker's container, with the tokens that the worker itself replaces."""
        base, query = f"{self.url}/v2/{ENDPOINT}", "?gpu=" + urllib.parse.quote(GPU)
        return {
            "RUNPOD_WEBHOOK_GET_JOB": f"{base}/job-take/$ID{query}",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{base}/job-done/$RUNPOD_POD_ID/$ID{query}",
            "RUNPOD_WEBHOOK_POST_STREAM": f"{base}/job-stream/$RUNPOD_POD_ID/$ID{query}",
            "RUNPOD_WEBHOOK_PING": f"{base}/ping/$RUNPOD_POD_ID{query}",
            "RUNPOD_PING_INTERVAL": "1000",
            "RUNPOD_AI_API_KEY": WORKER_KEY,
            "RUNPOD_POD_ID": worker,
            "RUNPOD_POD_HOSTNAME": f"{worker}-host",
            "RUNPOD_ENDPOINT_ID": ENDPOINT,
        }

    # -- what a test says and asks --

    def fault(self, channel: str, **what) -> None:
        with self.changed:
            self.faults.append(Fault(channel, **what))

    def submit(self, request: dict, job_id: str | None = None) -> str:
        with self.changed:
            job = Job(job_id or f"{uuid.uuid4()}-e1", request)
            self.jobs[job.id] = job
            self.queue.append(job.id)
            self.changed.notify_all()
            return job.id

    def wait(self, condition, seconds: float = 30) -> bool:
        """True as soon as `condition()` holds, which is asked under the lock."""
        end = time.monotonic() + seconds
        with self.changed:
            while not condition():
                self.expire()
                if self.closing or time.monotonic() >= end:
                    return False
                self.changed.wait(min(0.25, max(0.0, end - time.monotonic())))
            return True

    def worker_lost(self, worker: str) -> list[str]:
        """The platform has given `worker` up: what it ran goes back to the head of the queue."""
        with self.changed:
            lost = self.held_by(worker)
            for job in reversed(lost):
                self.put_back(job)
            self.workers.pop(worker, None)
            self.changed.notify_all()
            return [job.id for job in lost]

    def lose_silent(self, seconds: float) -> list[str]:
        """Gives up the workers that were not heard for so long, as the platform does when pings are missed."""
        with self.changed:
            silent = [worker for worker, heard in self.workers.items() if time.time() - heard > seconds]
            return [job for worker in silent for job in self.worker_lost(worker)]

    def seen(self, channel: str) -> list[Exchange]:
        with self.changed:
            return [exchange for exchange in self.trace if exchange.channel == channel]

    # -- below: called with the lock held --

    def put_back(self, job: Job) -> None:
        job.status, job.worker, job.output, job.taken_at, job.stop_told_at = "IN_QUEUE", None, None, 0, 0
        self.queue.appendleft(job.id)

    def end(self, job: Job, status: str) -> None:
        job.status, job.ended_at = status, time.time()
        self.changed.notify_all()

    def expire(self) -> None:
        """Ends what runs longer than its policy allows and forgets what is older than its ttl, running or not."""
        now = time.time()
        for job in list(self.jobs.values()):
            if job.status == "IN_PROGRESS" and now - job.taken_at > job.policy("executionTimeout"):
                self.stops[job.worker].append(job.id)
                self.end(job, "TIMED_OUT")
                job.error = "job timed out after its executionTimeout"
            if now - job.queued_at > job.policy("ttl"):
                if job.status == "IN_PROGRESS":
                    self.stops[job.worker].append(job.id)
                if job.id in self.queue:
                    self.queue.remove(job.id)
                del self.jobs[job.id]

    def find_fault(self, channel: str) -> Fault | None:
        for fault in self.faults:
            if fault.channel == channel:
                fault.times -= 1
                if fault.times == 0:
                    self.faults.remove(fault)
                return fault
        return self.storm.next(channel) if self.storm else None

    def take(self, worker: str, count: int) -> list[Job]:
        taken = []
        while self.queue and len(taken) < count:
            job = self.jobs[self.queue.popleft()]
            job.status, job.worker, job.taken_at = "IN_PROGRESS", worker, time.time()
            job.takes += 1
            job.acknowledged = False
            taken.append(job)
        self.changed.notify_all()
        return taken

    def held_by(self, worker: str) -> list[Job]:
        return [job for job in self.jobs.values() if job.worker == worker and job.status == "IN_PROGRESS"]

    def done(self, worker: str, job: Job, body: dict) -> None:
        if body.get("status") == "IN_PROGRESS":
            if job.status == "IN_PROGRESS":
                job.output = body.get("output")
            else:
                job.late.append(body)
        elif job.status != "IN_PROGRESS" or job.worker != worker:
            job.duplicates += job.acknowledged
            job.after_stop += bool(job.stop_told_at) and time.time() - job.stop_told_at > GRACE
            job.late.append(body)
        else:
            job.results.append(body)
            job.output, job.error = body.get("output"), body.get("error")
            if body.get("stopPod"):
                self.recycled.append(worker)
            self.end(job, "FAILED" if job.error else "COMPLETED")
        self.changed.notify_all()

    def cancel(self, job: Job) -> None:
        if job.status in FINAL:
            return
        if job.status == "IN_QUEUE":
            self.queue.remove(job.id)
        else:
            self.stops[job.worker].append(job.id)
        self.end(job, "CANCELLED")

    def retry(self, job: Job) -> None:
        if job.status not in ("FAILED", "TIMED_OUT"):
            raise Refused(400, f"job {job.id} is {job.status}; only FAILED and TIMED_OUT can be retried")
        job.error, job.ended_at, job.queued_at, job.retries = None, 0, time.time(), job.retries + 1
        self.put_back(job)
        self.queue.rotate(-1)
        self.retried += 1
        self.changed.notify_all()

    def health(self) -> dict:
        states = collections.Counter(job.status for job in self.jobs.values())
        busy = {job.worker for job in self.jobs.values() if job.status == "IN_PROGRESS"}
        idle = [worker for worker in self.workers if worker not in busy and worker not in self.unhealthy]
        return {
            "jobs": {"completed": states["COMPLETED"], "failed": states["FAILED"] + states["TIMED_OUT"],
                     "inProgress": states["IN_PROGRESS"], "inQueue": states["IN_QUEUE"], "retried": self.retried},
            "workers": {"idle": len(idle), "initializing": 0, "ready": len(idle), "running": len(busy),
                        "throttled": 0, "unhealthy": len(self.unhealthy)},
        }


class Server(http.server.ThreadingHTTPServer):
    daemon_threads, request_queue_size = True, 256

    def __init__(self, plane: ControlPlane):
        self.plane = plane
        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, request, client_address):
        pass  # a worker may leave at any time


class Cut(Exception):
    """The connection is to be cut now."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    worker_routes = re.compile(r"/(job-take|job-take-batch|job-stop|ping|job-done|job-stream)/([^/]+)(?:/([^/]+))?$")
    client_routes = re.compile(r"/(run|runsync|status|stream|cancel|retry|purge-queue|health)(?:/([^/]+))?$")

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.handle_any()

    def do_POST(self):
        self.handle_any()

    def handle_any(self) -> None:
        self.plane: ControlPlane = self.server.plane
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            raw = self.read_chunks()
        url = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qsl(url.query, keep_blank_values=True)
        route = url.path.removeprefix(f"/v2/{ENDPOINT}")
        try:
            if match := self.worker_routes.fullmatch(route):
                self.ask_as_worker(match, url.path, query, raw)
            elif match := self.client_routes.fullmatch(route):
                self.answer(200, self.ask_as_client(match[1], match[2], dict(query), raw))
            else:
                raise Refused(404, f"no such endpoint or call: {url.path}")
        except Refused as refused:
            self.answer(refused.status, {"error": refused.message})
        except (Cut, ConnectionError):
            self.close_connection = True
            # A reset, not an orderly end: the socket lingers for zero seconds.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def read_chunks(self) -> bytes:
        read = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            read += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return read

    def answer(self, status: int, body=None, half: bool = False, content_type: str = "application/json") -> None:
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        if data:
            self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if half else data)
        self.wfile.flush()
        if half:
            raise Cut

    # -- the worker's side --

    def ask_as_worker(self, match, path: str, query: list, raw: bytes) -> None:
        call, worker, job_id = match[1], match[2], match[3]
        channel = {"job-take-batch": "take"}.get(call, call.removeprefix("job-"))
        exchange = Exchange(channel, self.command, path, query, dict(self.headers), None,
                            time.monotonic() - self.plane.began, job_id)
        with self.plane.changed:
            if self.plane.tracing:
                self.plane.trace.append(exchange)
            self.plane.workers[worker] = time.time()
            fault = self.plane.find_fault(channel)
        try:
            if self.headers.get("Authorization") != WORKER_KEY:
                raise Refused(401, "Authorization: want the worker's key, raw")
            wanted = "POST" if channel in ("done", "stream") else "GET"
            if self.command != wanted or (wanted == "POST") != (job_id is not None):
                raise Refused(405, f"{call}: want {wanted} with {'worker and job' if wanted == 'POST' else 'worker'}")
            exchange.body = self.parse(raw) if wanted == "POST" else None
            self.apply(fault, exchange, lambda: self.effect(call, worker, job_id, exchange, len(raw)))
        except Refused as refused:
            exchange.answer = refused.status
            raise
        finally:
            with self.plane.changed:
                self.plane.changed.notify_all()

    def parse(self, raw: bytes) -> dict:
        try:
            body = json.loads(raw)
        except ValueError:
            raise Refused(400, "the body is not JSON") from None
        if not isinstance(body, dict):
            raise Refused(400, "the body is not a JSON object")
        return body

    def apply(self, fault: Fault | None, exchange: Exchange, effect) -> None:
        """Answers with the effect, the fault, or both."""
        if fault and fault.delay and not fault.after:
            time.sleep(fault.delay)
        if fault and fault.status:
            exchange.answer = fault.status
            return self.answer(fault.status, fault.body or {"error": "ordered by the test"},
                               content_type=fault.content_type)
        if fault and fault.how == "reset" and not fault.after:
            exchange.answer = "reset"
            raise Cut
        if fault and fault.how == "half" and not fault.after and exchange.channel != "take":
            exchange.answer = "half"
            return self.answer(200, {"status": "the answer that is cut in the middle"}, half=True)
        exchange.again = bool(fault) and fault.how == "again"
        status, body = effect()
        exchange.answer = fault.how if fault and fault.how else status
        if fault and fault.delay and fault.after:
            time.sleep(fault.delay)
        try:
            if fault and fault.how == "reset":
                raise Cut
            self.answer(status, body, half=bool(fault and fault.how == "half"))
            self.acknowledge(exchange)
        except (Cut, ConnectionError):
            self.undo(exchange)
            raise

    def acknowledge(self, exchange: Exchange) -> None:
        with self.plane.changed:
            job = self.plane.jobs.get(exchange.job)
            if exchange.channel == "done" and job and job.status in FINAL:
                job.acknowledged = True
            for stopped in exchange.given if exchange.channel == "stop" else ():
                if stopped in self.plane.jobs:
                    self.plane.jobs[stopped].stop_told_at = time.time()

    def undo(self, exchange: Exchange) -> None:
        """Jobs and stop signals that did not arrive are not gone; a result that arrived stays."""
        worker = exchange.path.rpartition("/")[2]
        with self.plane.changed:
            if exchange.channel == "take":
                for job in reversed([self.plane.jobs[job_id] for job_id in exchange.given]):
                    if job.status == "IN_PROGRESS" and job.worker == worker:
                        self.plane.put_back(job)
            if exchange.channel == "stop":
                self.plane.stops[worker] += exchange.given
            self.plane.changed.notify_all()

    def effect(self, call: str, worker: str, job_id: str | None, exchange: Exchange, size: int):
        plane, query = self.plane, dict(exchange.query)
        if call == "ping":
            if query.get("status") == "unhealthy":
                plane.unhealthy[worker] = query
            return 200, {"status": "ok"}
        if call in ("job-take", "job-take-batch"):
            count = int(query["batch_size"]) if call == "job-take-batch" else 1
            plane.wait(lambda: plane.queue or exchange.again or self.is_gone(), plane.hold)
            with plane.changed:
                if self.is_gone():
                    raise Cut
                again = plane.held_by(worker)[:1] if exchange.again else []
                jobs = plane.take(worker, count - len(again))
                exchange.given = [job.id for job in jobs]
                answers = [job.for_worker() for job in again + jobs]
            return (204, None) if not answers else (200, answers if call == "job-take-batch" else answers[0])
        if call == "job-stop":
            plane.wait(lambda: plane.stops[worker] or self.is_gone(), plane.hold)
            with plane.changed:
                if self.is_gone():
                    raise Cut
                exchange.given = plane.stops.pop(worker, [])
            return (200, {"jobsToStop": exchange.given}) if exchange.given else (204, None)
        if plane.result_limit and size > plane.result_limit:
            raise Refused(413, f"the result has {size} bytes; at most {plane.result_limit} are taken")
        with plane.changed:
            if job_id not in plane.jobs:
                plane.strays += 1
                raise Refused(404, f"job {job_id} is not known")
            if call == "job-stream":
                plane.jobs[job_id].chunks.append({"output": exchange.body.get("output")})
                plane.changed.notify_all()
            else:
                plane.done(worker, plane.jobs[job_id], exchange.body)
        return 200, {"status": "ok"}

    def is_gone(self) -> bool:
        """Whether who asks has hung up; nothing is given to them then."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        try:
            return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)
        except ConnectionError:
            return True

    # -- the client's side --

    def ask_as_client(self, call: str, job_id: str | None, query: dict, raw: bytes) -> dict:
        if (self.headers.get("Authorization") or "").removeprefix("Bearer ") != CLIENT_KEY:
            raise Refused(401, "Authorization: want the API key")
        reads = call in ("health", "status", "stream")
        if self.command != ("GET" if reads else "POST") and call != "runsync":
            raise Refused(405, f"{call}: want {'GET' if reads else 'POST'}")
        if call in ("run", "runsync"):
            return self.run(call, query, raw)
        with self.plane.changed:
            self.plane.expire()
            if call == "health":
                return self.plane.health()
            if call == "purge-queue":
                removed = list(self.plane.queue)
                for queued in removed:
                    self.plane.cancel(self.plane.jobs[queued])
                return {"removed": len(removed), "status": "completed"}
            job = self.plane.jobs.get(job_id)
            if job is None:
                raise Refused(404, f"job {job_id} is not known")
            if call == "stream":
                chunks, job.chunks = job.chunks, []
                return {"status": job.status, "stream": chunks}
            if call == "cancel":
                self.plane.cancel(job)
            if call == "retry":
                self.plane.retry(job)
            return job.shown() if call == "status" else {"id": job.id, "status": job.status}

    def run(self, call: str, query: dict, raw: bytes) -> dict:
        request = self.parse(raw)
        if "input" not in request:
            raise Refused(400, "input: missing")
        job = self.plane.jobs[self.plane.submit(request)]
        if call == "run":
            return {"id": job.id, "status": "IN_QUEUE"}
        wait = min(300_000, max(1000, int(query.get("wait", 90_000)))) / 1000
        self.plane.wait(lambda: job.status in FINAL, wait)
        with self.plane.changed:
            return job.shown()
