"""What the control plane holds: jobs, ordered faults, and the record of every exchange."""

import dataclasses
import random
import time

ENDPOINT, WORKER_KEY, CLIENT_KEY = "limner-test", "worker-key", "client-key"
GPU = "NVIDIA H200"  # rides in the query of every URL given to the worker
FINAL = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")
DEFAULT_POLICY = {"executionTimeout": 600_000, "ttl": 86_400_000}  # milliseconds, as documented


@dataclasses.dataclass
class Job:
    id: str
    request: dict
    status: str = "IN_QUEUE"
    output: object = None  # of the result, or the latest progress while IN_PROGRESS
    error: str | None = None
    worker: str | None = None
    chunks: list = dataclasses.field(default_factory=list)  # streamed and not yet fetched
    results: list = dataclasses.field(default_factory=list)  # every final body that counted
    takes: int = 0
    duplicates: int = 0  # results after one that the worker knows to be accepted
    late: list = dataclasses.field(default_factory=list)  # bodies that came when the job had ended
    acknowledged: bool = False
    queued_at: float = dataclasses.field(default_factory=time.time)
    taken_at: float = 0
    ended_at: float = 0
    changed: int = 0

    def policy(self, name: str) -> float:
        return (self.request.get("policy") or {}).get(name, DEFAULT_POLICY[name]) / 1000

    def for_worker(self) -> dict:
        given = {name: self.request[name] for name in ("webhook", "s3Config") if name in self.request}
        return {"id": self.id, "input": self.request["input"], **given}

    def shown(self) -> dict:
        shown = {"id": self.id, "status": self.status}
        if self.taken_at:
            shown["delayTime"] = int((self.taken_at - self.queued_at) * 1000)
        if self.ended_at and self.taken_at:
            shown["executionTime"] = int((self.ended_at - self.taken_at) * 1000)
        if self.output is not None:
            shown["output"] = self.output
        if self.error is not None:
            shown["error"] = self.error
        return shown


@dataclasses.dataclass
class Fault:
    """What goes wrong the next `times` times that `channel` (take, done, stream, stop, ping) is asked.

    `status` is answered, with `body` of `content_type`, and nothing else happens. `delay` seconds pass before that or
    before the request counts. `how` = "reset" cuts the connection, "half" cuts it in the middle of the answer. `after`:
    the request counts, and what goes wrong or is late is its answer.
    """
    channel: str
    status: int = 0
    delay: float = 0
    how: str = ""
    after: bool = False
    times: int = 1
    body: bytes = b""
    content_type: str = "application/json"


class Storm:
    """Random faults at `rate` per exchange, the same ones for the same seed and order of requests."""

    def __init__(self, rate: float, seed: int, channels=("take", "done", "stream", "stop", "ping")):
        self.rate, self.channels, self.random = rate, channels, random.Random(seed)

    def next(self, channel: str) -> Fault | None:
        if channel not in self.channels or self.random.random() >= self.rate:
            return None
        kind = self.random.choice(("delay", "reset", "half", "lost", 500, 502, 503, 429 if channel == "take" else 504))
        if kind == "delay":
            return Fault(channel, delay=self.random.uniform(0.01, 0.3))
        if kind in ("reset", "half"):
            return Fault(channel, how=kind)
        return Fault(channel, how="reset", after=True) if kind == "lost" else Fault(channel, status=kind)


@dataclasses.dataclass
class Exchange:
    """One request of a worker and what it was told; times in seconds since the plane started."""
    channel: str
    method: str
    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]
    body: object
    at: float
    job: str | None = None
    answer: int | str = 0  # a status, or "reset", "half"
    given: list[str] = dataclasses.field(default_factory=list)  # ids of jobs handed out or to be stopped


class Refused(Exception):
    def __init__(self, status: int, message: str):
        self.status, self.message = status, message
