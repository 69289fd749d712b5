"""The whole service under kill -9, a pause longer than a lease, a clock that jumps, a full disk and a storm of equal
requests; its webhooks.

    service_test.py build/limner [--shim build/libio_shim.so] [--kills 10] [--seed N] [--only NAME] [--json FILE]

No accepted (202) job may be lost, each ends in one terminal state, its pictures are there, and the receiver of its
webhook is told of its end under one webhook-id with one body.
"""

import argparse
import collections
import json
import pathlib
import random
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback

from service_harness import SMALLEST, TERMINAL, Client, Receiver, Service, wait_until

LEASE_S = 10
SCENARIOS = ["storm", "webhooks", "kills", "pause", "clock", "full_disk"]
DAY_S = 86_400


class Ledger:
    """What clients were promised: each key's job, once an answer came."""

    def __init__(self):
        self.lock = threading.Lock()
        self.promised = {}
        self.canceled = set()
        self.wrong = []

    def submit(self, service: Service, key: str, body: dict, give_up: threading.Event | None = None) -> bool:
        """Asks until there is an answer, or until told to give up; the key makes asking again harmless."""
        while not (give_up and give_up.is_set()):
            try:
                answer = service.client().submit(body, key)
            except OSError:
                time.sleep(0.02)
                continue
            if answer.status in (409, 429, 503, 507):
                time.sleep(0.05)
                continue
            with self.lock:
                if answer.status != 202:
                    self.wrong.append(f"{key}: {answer}")
                    return True
                job = answer.json["request_id"]
                if self.promised.setdefault(key, job) != job:
                    self.wrong.append(f"{key} made {job} after {self.promised[key]}")
            return True
        return False

    def cancel(self, service: Service, key: str):
        """Asks once; an answer that says so is a promise too."""
        try:
            answer = service.client().request("POST", f"/v1/generations/{self.promised[key]}/cancel")
        except (OSError, KeyError):
            return
        if answer.status == 200 and answer.json["status"] == "canceled":
            self.canceled.add(self.promised[key])


def body_for(receiver: Receiver, seed: int) -> dict:
    return {**SMALLEST, "seed": seed,
            "webhook": {"url": receiver.url, "secret": receiver.secret, "events": ["started", *sorted(TERMINAL)]}}


def check_all(service: Service, receiver: Receiver, ledger: Ledger, unanswered: int) -> dict:
    """Everything promised is kept. Up to `unanswered` further jobs may be there: nobody knows of them."""
    assert not ledger.wrong, ledger.wrong
    client = service.client()
    promised = set(ledger.promised.values())
    assert len(promised) == len(ledger.promised), "two keys stand for one job"
    shown = {job: client.wait(job, 120) for job in promised}
    listed = client.all_jobs()
    ids = [job["request_id"] for job in listed]
    assert len(set(ids)) == len(ids), "the list shows a job twice"
    assert promised <= set(ids), f"not listed: {promised - set(ids)}"
    assert len(ids) <= len(promised) + unanswered, f"{len(ids)} jobs for {len(promised)} answered requests"
    for identity, job in shown.items():
        if job["status"] == "completed":
            client.check_pictures(job)
        elif job["status"] == "failed":
            assert "vanished" in job["error"]["message"], f"no worker of it was killed three times: {job}"
        if identity in ledger.canceled:
            assert job["status"] == "canceled", f"canceled, and then {job}"
    wait_until(lambda: promised <= receiver.ends().keys(), 60, "a webhook of some job has not come")
    receiver.check()
    ends = receiver.ends()
    for job, told in ends.items():
        assert len(told) == 1, f"job {job} was told to end more than once: {told}"
        if job in shown:
            assert told[0][1] == shown[job]["status"], f"{job}: told {told}, shown {shown[job]['status']}"
    return dict(collections.Counter(job["status"] for job in shown.values()))


def kills(service: Service, kills_wanted: int, seed: int) -> dict:
    """kill -9 at random moments, right after a 202, and while the receiver holds a message unanswered."""
    chance = random.Random(seed)
    receiver = Receiver(refuse_each=7)
    ledger = Ledger()
    ways = collections.Counter()

    def ask(key: str, body: dict, give_up: threading.Event, then_cancel: bool):
        if ledger.submit(service, key, body, give_up) and then_cancel:
            ledger.cancel(service, key)

    number = 0
    unanswered = 0
    service.start()
    for kill in range(kills_wanted):
        give_up = threading.Event()
        how = chance.choice(["random", "random", "accepted", "webhook"])
        killed = threading.Event()
        ways[how] += 1

        def strike():
            if not killed.is_set():
                killed.set()
                service.kill()

        receiver.on_message = strike if how == "webhook" else lambda: None
        clients = []
        for _ in range(chance.randint(1, 3)):
            key, body = f"key-{number}", body_for(receiver, number)
            number += 1
            clients.append(threading.Thread(target=ask, args=(key, body, give_up, chance.random() < 0.2)))
        for client in clients:
            client.start()
        if how == "accepted":
            clients[0].join(5)
            strike()
        elif how == "random":
            time.sleep(chance.random() * 0.6)
            strike()
        else:
            killed.wait(3)
            strike()
        service.process.wait()
        receiver.on_message = lambda: None
        # Most clients try again until they are answered; some give up, as clients do.
        if chance.random() < 0.2:
            give_up.set()
        service.start()
        for client in clients:
            client.join(30)
            assert not client.is_alive(), "a request gets no answer"
        unanswered = number - len(ledger.promised)
        if kill % 25 == 24:
            print(f"  {kill + 1} kills, {len(ledger.promised)} jobs accepted", flush=True)
    statuses = check_all(service, receiver, ledger, unanswered)
    receiver.close()
    return {"kills": dict(ways), "accepted": len(ledger.promised), "ended": statuses,
            "webhook_messages": receiver.taken, "longest_start_s": round(service.longest_start, 2)}


def storm(service: Service, requests: int = 32) -> dict:
    """Equal requests at once, with one key: one job."""
    receiver = Receiver()
    service.start()
    client = service.client()
    before = len(client.all_jobs())
    answers = []
    barrier = threading.Barrier(requests)

    def ask():
        barrier.wait()
        answers.append(service.client().submit(body_for(receiver, 1), "storm"))

    threads = [threading.Thread(target=ask) for _ in range(requests)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == requests
    statuses = collections.Counter(answer.status for answer in answers)
    assert statuses.keys() <= {202, 409}, f"{statuses}, such as {answers[0]}"
    jobs = {answer.json["request_id"] for answer in answers if answer.status == 202}
    assert len(jobs) == 1, f"one key made {jobs}"
    assert len(client.all_jobs()) == before + 1
    job = client.wait(jobs.pop())
    assert job["status"] == "completed", job
    wait_until(lambda: job["request_id"] in receiver.ends(), 20, "the webhook has not come")
    receiver.check()
    other = client.submit(body_for(receiver, 2), "storm")
    assert other.status == 422, f"the key with another body: {other}"
    receiver.close()
    return {"requests": requests, "answers": dict(statuses)}


def webhooks(service: Service) -> dict:
    """An account's own endpoint and secret, rotation, an endpoint that is gone, and resending by hand."""
    receiver = Receiver()
    service.start()
    client = service.client()

    def call(method: str, path: str, wanted: int, body: dict | None = None):
        answer = client.request(method, "/v1/webhooks/" + path, body)
        assert answer.status == wanted, f"{method} {path}: {answer}"
        return answer.json if answer.body else None

    def draw(number: int) -> str:
        job = client.submit({**SMALLEST, "steps": 20, "seed": number}, f"webhooks-{number}").json["request_id"]
        client.wait(job)
        return job

    def delivery_of(job: str, status: str):
        listed = call("GET", f"deliveries?status={status}", 200)["data"]
        return next((one for one in listed if one["request_id"] == job and one["type"].endswith("completed")), None)

    receiver.secret = call("POST", "secret", 201)["secret"]
    asked = {"url": receiver.url, "events": ["queued", "started", "progress", "completed"]}
    call("PUT", "endpoint", 422, {**asked, "url": "http://10.0.0.1/"})
    call("PUT", "endpoint", 200, asked)
    first = draw(1)
    wait_until(lambda: first in receiver.ends(), 20, "the webhook has not come")
    assert set(receiver.types()) == {"generation." + event for event in asked["events"]}, receiver.types()
    # The old secret still verifies beside the new one.
    call("POST", "secret", 201)
    delivered = wait_until(lambda: delivery_of(first, "delivered"), 10, "the delivery is not listed")
    call("POST", f"deliveries/{delivered['id']}/resend", 202)
    wait_until(lambda: receiver.signers[2] == 1, 10, "the resent message has not come with two signatures")
    # 410 ends it until somebody asks again.
    receiver.status = 410
    second = draw(2)
    gone = wait_until(lambda: delivery_of(second, "failed"), 10, "410 has not ended the message")
    assert call("GET", "endpoint", 200)["disabled"]
    receiver.status = 204
    call("POST", f"deliveries/{gone['id']}/resend", 202)
    wait_until(lambda: delivery_of(second, "delivered"), 10, "the resent message was not delivered")
    assert not call("GET", "endpoint", 200)["disabled"]
    call("DELETE", "endpoint", 204)
    taken = receiver.taken
    draw(3)
    time.sleep(0.5)
    assert receiver.taken == taken, "told although the endpoint was removed"
    receiver.check()
    receiver.close()
    return {"messages": taken}


def pause(service: Service) -> dict:
    """SIGSTOP for longer than a lease while a job runs: whoever comes late changes nothing."""
    receiver = Receiver()
    ledger = Ledger()
    service.start()
    for number in range(3):
        ledger.submit(service, f"pause-{number}", {**body_for(receiver, number), "steps": 30, "num_images": 2})
    first = ledger.promised["pause-0"]
    wait_until(lambda: service.client().get(first)["status"] == "running", 20, "no job is running")
    service.signal(signal.SIGSTOP)
    time.sleep(LEASE_S + 2)
    service.signal(signal.SIGCONT)
    statuses = check_all(service, receiver, ledger, 0)
    assert statuses == {"completed": 3}, statuses
    receiver.close()
    return {"paused_s": LEASE_S + 2, "ended": statuses}


class WallClock:
    """That of a service which runs under the shim."""

    def __init__(self, file: pathlib.Path, shim: str):
        self.file = file
        self.environment = {"LD_PRELOAD": shim, "IO_SHIM_CLOCK": str(file)}
        file.write_bytes(bytes(8))

    def set(self, seconds_ahead: int):
        with open(self.file, "r+b") as file:  # mapped: never empty
            file.write(struct.pack("=q", seconds_ahead))


def clock(service: Service, shim: str) -> dict:
    """The wall clock is set a day ahead and then two days back, while a job runs, a message waits to be sent again and
    an account has used up its rate; then the service starts again with a clock that is a day late."""
    receiver, ledger = Receiver(), Ledger()
    receiver.clock_skew = 3 * DAY_S
    wall = WallClock(service.folder.parent / "wall-clock", shim)
    service.environment.update(wall.environment, LIMNER_RATE_LIMIT="on", LIMNER_SERVER_ADDRESS_REQUESTS_PER_MINUTE="0")
    service.start()
    others = service.client(key=service.new_key("bob"))
    for account, rate in ("ann", ("0", "100")), ("bob", ("60", "3")):
        subprocess.run([service.program, "account", "set", account, "--requests-per-minute", rate[0], "--burst", rate[1],
                        "--data-dir", str(service.folder)], check=True, capture_output=True)
    client = service.client()

    def status_of(url: str) -> int:
        return Client(service.port, None).request("GET", "/" + url.split("/", 3)[3]).status

    urls = []
    for ahead in (DAY_S, -DAY_S):
        receiver.status = 503
        quick, slow = f"quick-{ahead}", f"slow-{ahead}"
        ledger.submit(service, quick, body_for(receiver, 1))
        urls.append(client.wait(ledger.promised[quick])["images"][0]["url"])
        wait_until(lambda: ledger.promised[quick] in receiver.ends(), 20, "the webhook has not come")
        ledger.submit(service, slow, {**body_for(receiver, 2), "steps": 150, "num_images": 4})
        wait_until(lambda: client.get(ledger.promised[slow])["status"] == "running", 20, "no job is running")
        wait_until(lambda: others.request("GET", "/v1/models").status == 429, 5, "the rate is not held")
        wall.set(ahead)
        wait_until(lambda: others.request("GET", "/v1/models").status == 200, 5, "refused long after its time")
        assert client.get(ledger.promised[slow])["status"] == "running", "the job ended too soon to tell"
        time.sleep(2)  # leases are looked at every second
        receiver.status = 204
        expires_after = urls[-1], 403 if ahead > 0 else 200
        assert status_of(expires_after[0]) == expires_after[1], "a URL's hour follows the wall clock"
        shown = client.wait(ledger.promised[slow])
        client.check_pictures(shown)
        wait_until(lambda: delivered(client, ledger.promised[quick]), 20, "a message waits for the clock")
    service.stop()
    service.start()
    ledger.submit(service, "late", body_for(receiver, 3))
    statuses = check_all(service, receiver, ledger, 0)
    assert statuses == {"completed": 5}, statuses
    service.stop()
    database = sqlite3.connect(f"file:{service.folder / 'limner.db'}?mode=ro", uri=True)
    attempts = [attempt for (attempt,) in database.execute("select attempt from jobs")]
    database.close()
    assert attempts == [1] * 5, f"a lease ended with the clock: {attempts} attempts"
    audited = subprocess.run([service.program, "audit", "verify", "--data-dir", str(service.folder)], capture_output=True)
    assert audited.returncode == 0, audited.stdout
    receiver.close()
    return {"jumps_s": [DAY_S, -2 * DAY_S], "ended": statuses}


def delivered(client: Client, job: str) -> bool:
    listed = client.request("GET", "/v1/webhooks/deliveries?status=delivered").json["data"]
    return any(one["request_id"] == job and one["type"].endswith("completed") for one in listed)


def full_disk(service: Service) -> dict:
    """A disk that fills up and is freed: no promise without the means, reads go on, all is well afterwards."""
    receiver = Receiver()
    ledger = Ledger()
    service.start()
    assert ledger.submit(service, "before", body_for(receiver, 0))
    service.client().wait(ledger.promised["before"])
    filler = service.folder / "filler"
    with open(filler, "wb") as file:
        try:
            while True:
                file.write(bytes(1 << 16))
                file.flush()
        except OSError:
            pass
    refused = collections.Counter()
    end = time.monotonic() + 5  # longer than it takes the service to look at its disk
    number = 0
    while time.monotonic() < end:
        answer = service.client().submit(body_for(receiver, number), f"full-{number}")
        if answer.status == 202:
            ledger.promised[f"full-{number}"] = answer.json["request_id"]
        else:
            assert answer.status in (429, 500, 503, 507), answer
            assert answer.headers["Content-Type"].startswith("application/problem+json"), answer
        refused[answer.status] += 1
        assert service.client().get(ledger.promised["before"])["status"] == "completed"
        number += 1
        time.sleep(0.2)
    assert refused.keys() - {202}, f"a full disk refused nothing: {refused}"
    assert 500 not in refused, f"a full disk is no mistake of ours: {refused}"
    filler.unlink()
    freed = time.monotonic()
    assert ledger.submit(service, "after", body_for(receiver, 99))
    recovered = time.monotonic() - freed
    statuses = check_all(service, receiver, ledger, number)
    assert service.starts == 1
    receiver.close()
    return {"answers_while_full": dict(refused), "accepts_again_s": round(recovered, 2), "ended": statuses}


class Tmpfs:
    """A small disk of its own; skipped where mounting is not allowed."""

    def __init__(self, folder: pathlib.Path, megabytes: int):
        self.folder = folder
        folder.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)],
                                 capture_output=True, text=True)
        self.problem = mounted.stderr.strip() if mounted.returncode else ""

    def close(self):
        if not self.problem:
            subprocess.run(["umount", str(self.folder)], check=True)


def run_full_disk(program: str, folder: pathlib.Path) -> dict:
    disk = Tmpfs(folder / "disk", 160)
    if disk.problem:
        return {"skipped": f"no tmpfs can be mounted: {disk.problem}"}
    service = Service(program, disk.folder / "data")
    service.log_path = folder / "full_disk.log"
    try:
        return full_disk(service)
    finally:
        service.stop()
        disk.close()


def run(name: str, program: str, folder: pathlib.Path, arguments) -> dict:
    if name == "full_disk":
        return run_full_disk(program, folder)
    if name == "clock" and not arguments.shim:
        return {"skipped": "no shim was named, which moves the clock"}
    service = Service(program, folder / name, LIMNER_QUEUE_LEASE_SECONDS=str(LEASE_S))
    try:
        if name == "kills":
            return kills(service, arguments.kills, arguments.seed)
        if name == "clock":
            return clock(service, arguments.shim)
        return {"storm": storm, "webhooks": webhooks, "pause": pause}[name](service)
    except BaseException:
        print(service.log_tail(), file=sys.stderr)
        raise
    finally:
        service.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("--shim", help="the built io_shim.cpp")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", choices=SCENARIOS)
    parser.add_argument("--json", type=pathlib.Path, help="where to write what was seen")
    arguments = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="limner-service-"))
    seen, failed = {"seed": arguments.seed}, False
    try:
        for name in [arguments.only] if arguments.only else SCENARIOS:
            began = time.monotonic()
            try:
                seen[name] = run(name, arguments.program, folder, arguments)
            except (AssertionError, OSError, subprocess.SubprocessError, KeyError):
                traceback.print_exc()
                failed = True
                seen[name] = "failed"
            print(f"{name}: {seen[name]} in {time.monotonic() - began:.1f} s", flush=True)
    finally:
        if failed:
            print(f"left for you to look at: {folder} (seed {arguments.seed})", file=sys.stderr)
        else:
            shutil.rmtree(folder)
    if arguments.json:
        arguments.json.write_text(json.dumps(seen, indent=2) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
