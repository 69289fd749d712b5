"""What the control plane holds: jobs, ordered faults, and the record of every exchange."""

import dataclasses
import random
import time

ENDPOINT, WORKER_KEY, CLIENT_KEY = "limner-test", "worker-key", "client-key"
GPU = "NVIDIA H200"  # rides in the query of every URL given to the worker
FINAL = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")
GRACE = 2.0  # seconds for a result that crosses the news that nobody wants it
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
    retries: int = 0  # by its client
    duplicates: int = 0  # results after one that the worker knows to be accepted
    late: list = dataclasses.field(default_factory=list)  # bodies that came when the job had ended
    after_stop: int = 0  # of those: since more than GRACE seconds the worker knew that its client wants none
    acknowledged: bool = False
    stop_told_at: float = 0
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
    before the request counts. `how` = "reset" cuts the connection, "half" cuts it in the middle of the answer, "again"
    hands out what the worker has already. `after`: the request counts, and what goes wrong or is late is its answer.
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
    common = ("delay", "slow", "reset", "half", "lost", 500, 502, 503)
    kinds = {"take": (*common, 429, 400, "again"), "done": (*common, 429, 400), "stream": (*common, 429),
             "stop": (*common, 429), "ping": (*common, 429)}

    def __init__(self, rate: float, seed: int, channels=tuple(kinds)):
        self.rate, self.channels, self.random = rate, channels, random.Random(seed)
        self.told: dict[str, int] = {}  # how many of each kind there were

    def next(self, channel: str) -> Fault | None:
        if channel not in self.channels or self.random.random() >= self.rate:
            return None
        kind = self.random.choice(self.kinds[channel])
        self.told[f"{channel} {kind}"] = self.told.get(f"{channel} {kind}", 0) + 1
        if kind in ("delay", "slow"):
            delay = self.random.uniform(0.01, 0.3) if kind == "delay" else self.random.uniform(1, 3)
            return Fault(channel, delay=delay, after=self.random.random() < 0.5)
        if kind in ("reset", "half", "again"):
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
    again: bool = False  # a job that the worker has already is to be among them


class Refused(Exception):
    def __init__(self, status: int, message: str):
        self.status, self.message = status, message
