"""A fixed story that a client of `limner serve` lives through, and the judge of what is left after it."""

import collections
import pathlib
import sqlite3
import subprocess
import threading
import time

from service_harness import SMALLEST, TERMINAL, Receiver, Service, wait_until

# In seconds; a machine that does other work besides needs some.
PATIENCE = 60


class Ledger:
    """What the client was told, and when: `now` counts the bytes of the record."""

    def __init__(self, now=lambda: 0):
        self.now = now
        self.promised = {}  # by idempotency key: (moment, job)
        self.ends = {}  # by job: (moment, status)
        self.pictures = {}  # by job: (moment, their SHA-256)
        self.deleting = {}  # by job: the moment of asking
        self.deleted = {}  # by job: the moment of the answer
        self.acts = []  # moments

    def as_of(self, moment: int) -> "Ledger":
        """What was known at that moment of the record."""
        past = Ledger()
        for name in ("promised", "ends", "pictures"):
            setattr(past, name, {key: value for key, value in getattr(self, name).items() if value[0] <= moment})
        for name in ("deleting", "deleted"):
            setattr(past, name, {key: at for key, at in getattr(self, name).items() if at <= moment})
        past.acts = [at for at in self.acts if at <= moment]
        return past

    def promise(self, key: str, job: str):
        known = self.promised.setdefault(key, (self.now(), job))[1]
        assert known == job, f"the key {key} made {job} after {known}"

    def ended(self, job: str, status: str):
        known = self.ends.setdefault(job, (self.now(), status))[1]
        assert known == status, f"{job} had ended as {known}, and is now {status}"


class Stopped(Exception):
    pass


class Story:
    """What the client does. Told again after a restart it changes nothing that was done. `before` is called with the
    number of each request that changes something."""

    def __init__(self, service: Service, receiver: Receiver, ledger: Ledger, before=lambda number: None):
        self.service, self.receiver, self.ledger, self.before = service, receiver, ledger, before
        self.stop = threading.Event()
        self.asked = 0
        self.refusals = collections.Counter()

    def ask(self, method: str, path: str, wanted: int, body=None, headers=None, repeated: int = 0,
            doubtful: bool = False):
        """Until there is the answer that is wanted, or, where an earlier try may have done it already, `repeated`."""
        if method != "GET":
            self.asked += 1
            self.before(self.asked)
        while not self.stop.is_set():
            try:
                answer = self.service.client().request(method, path, body, headers)
            except OSError:
                doubtful = True
                time.sleep(0.02)
                continue
            if answer.status == wanted or doubtful and answer.status == repeated:
                return answer
            doubtful = True
            assert answer.status in (409, 429, 500, 503, 507), f"{method} {path}: {answer}"
            assert answer.headers["Content-Type"].startswith("application/problem+json"), answer
            self.refusals[answer.status] += 1
            time.sleep(0.05)
        raise Stopped

    def bodies(self) -> dict:
        told = {"url": self.receiver.url, "secret": self.receiver.secret, "events": ["started", *sorted(TERMINAL)]}
        return {"plain": {**SMALLEST, "seed": 1, "num_images": 2, "output": {"thumbnails": [16]}},
                "told": {**SMALLEST, "seed": 2, "webhook": told},
                "canceled": {**SMALLEST, "seed": 3, "steps": 20, "webhook": told},
                "deleted": {**SMALLEST, "seed": 4, "output": {"retention": "cold"}}}

    def tell(self):
        for key, body in self.bodies().items():
            known = self.ledger.promised.get(key)
            if known and known[1] in self.ledger.deleting:
                continue
            answer = self.ask("POST", "/v1/generations", 202, body, {"Idempotency-Key": key})
            self.ledger.promise(key, answer.json["request_id"])
            if key == "canceled":
                self.ask("POST", f"/v1/generations/{answer.json['request_id']}/cancel", 200)
        for key in self.bodies():
            self.wait(self.ledger.promised[key][1])
        self.delete(self.ledger.promised["deleted"][1])
        self.ask("POST", "/v1/webhooks/secret", 201)
        self.ledger.acts.append(self.ledger.now())
        for key in ("told", "canceled"):
            job = self.ledger.promised[key][1]
            wait_until(lambda: job in self.receiver.ends() or self.stop.is_set(), PATIENCE,
                       f"no webhook told of the end of {job}")

    def wait(self, job: str):
        if job in self.ledger.deleting:
            return
        end = time.monotonic() + PATIENCE
        while True:
            shown = self.ask("GET", f"/v1/generations/{job}", 200).json
            if shown["status"] in TERMINAL:
                self.ledger.pictures[job] = self.ledger.now(), [image["sha256"] for image in shown["images"]]
                return self.ledger.ended(job, shown["status"])
            assert time.monotonic() < end, f"{job} is still {shown['status']}"
            time.sleep(0.02)

    def delete(self, job: str):
        if job in self.ledger.deleted:
            return
        asked_before = job in self.ledger.deleting
        self.ledger.deleting.setdefault(job, self.ledger.now())
        self.ask("DELETE", f"/v1/generations/{job}", 204, repeated=404, doubtful=asked_before)
        self.ledger.deleted[job] = self.ledger.now()


class Telling:
    """A story that is told by a thread of its own."""

    def __init__(self, story: Story):
        self.story, self.wrong = story, None
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        try:
            self.story.tell()
        except Stopped:
            pass
        except BaseException as error:
            self.wrong = error

    def is_over(self) -> bool:
        return not self.thread.is_alive()

    def stop(self):
        self.story.stop.set()
        self.thread.join(PATIENCE)
        assert self.is_over(), "a request gets no answer"
        if self.wrong:
            raise self.wrong


def judge(service: Service, receiver: Receiver, ledger: Ledger) -> dict:
    """All that the client was told holds; ends by stopping the service."""
    client = service.client()
    deleted = set(ledger.deleted)
    promised = {job for _, job in ledger.promised.values()}
    assert len(promised) == len(ledger.promised), "two keys stand for one job"
    ends = {}
    for job in promised - deleted:
        shown = client.wait(job, PATIENCE)
        ends[job] = shown["status"]
        ledger.ended(job, shown["status"])
        if shown["status"] == "completed":
            client.check_pictures(shown)
    for job in deleted:
        assert client.request("GET", f"/v1/generations/{job}").status == 404, f"{job} was deleted, and is there"
    canceled = ledger.promised["canceled"][1]
    assert all(status == "completed" for job, status in ends.items() if job != canceled), ends
    listed = [job["request_id"] for job in client.all_jobs()]
    assert sorted(listed) == sorted(ends), f"listed are {listed}, promised {ends}"
    receiver.check()
    for job, told in receiver.ends().items():
        assert len(told) == 1, f"job {job} was told to end more than once: {told}"
        assert told[0][1] == ends[job], f"job {job} was told to be {told[0][1]} and is {ends[job]}"
    wait_until(lambda: not rows(service, "select * from object_removals"), PATIENCE, "deleted pictures are still there")
    service.process.terminate()
    assert service.process.wait(PATIENCE) == 0, f"SIGTERM ends the service with {service.process.returncode}"
    judge_database(service, ends, deleted, len(ledger.acts))
    return judge_files(service, {sha256 for job in deleted for sha256 in ledger.pictures[job][1]})


def rows(service: Service, question: str) -> list[tuple]:
    database = sqlite3.connect(f"file:{service.folder / 'limner.db'}?mode=ro", uri=True, timeout=5)
    try:
        return database.execute(question).fetchall()
    finally:
        database.close()


def judge_database(service: Service, ends: dict, deleted: set, acts: int):
    assert rows(service, "pragma integrity_check") == [("ok",)]
    usage = dict(rows(service, "select job_id, count(*) from job_usage group by job_id"))
    wanted = {job: 1 for job in {*deleted, *(job for job, status in ends.items() if status == "completed")}}
    assert usage == wanted, f"usage rows {usage}, completed {wanted}"
    terminal = ", ".join(f"'{status}'" for status in TERMINAL)
    ended = rows(service, "select j.id, e.type from jobs j join job_events e on e.sequence = j.sequence "
                          f"where e.type in ({terminal})")
    assert sorted(ended) == sorted(ends.items()), f"terminal events {ended}, jobs {ends}"
    ((rotated,),) = rows(service, "select count(*) from audit_log where action = 'webhooks.secret'")
    ((secrets,),) = rows(service, "select count(*) from webhook_secrets")
    assert acts <= rotated and secrets - 1 <= rotated, f"{acts} acts answered, {secrets} done, {rotated} audited"
    verified = subprocess.run([service.program, "audit", "verify", "--data-dir", str(service.folder)],
                              capture_output=True, text=True)
    assert verified.returncode == 0, verified.stdout + verified.stderr


def judge_files(service: Service, deleted: set) -> dict:
    """What a deleted job showed is gone. Counts what no job shows: an attempt that did not come to its end left it, for
    the sweeper or, in a class that it does not sweep, for ever."""
    results = " ".join(result for (result,) in rows(service, "select result from jobs"))
    artifacts = service.folder / "artifacts"
    stored = [str(path.relative_to(artifacts)) for path in artifacts.rglob("*") if path.is_file()]
    without_owner = [key for key in stored if key not in results]
    kept = [key for key in without_owner if pathlib.PurePath(key).stem in deleted]
    assert not kept, f"deleted, and still there: {kept}"
    return {"leftovers": len(without_owner), "for_ever": sum(key.startswith("cold/") for key in without_owner)}
