"""`limner serve` at more than it can do, for a long time: what it refuses, what it keeps of its memory and files, and how the
tiers share it.

    bench/service/soak.py build/limner [--minutes 10] [--load 1.5] [--json FILE]

Small jobs are offered to all three tiers alike, at `load` times what the worker was measured to draw. The queues are short, so
that they are full soon and the rest of the time is all back-pressure.
"""

import argparse
import collections
import json
import os
import pathlib
import statistics
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "fault"))

from service_harness import Service, wait_until  # noqa: E402

TIERS = ["turbo", "fast", "relax"]
JOB = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 4}
WAITING = 200  # jobs of a tier
ENDED = {"completed", "failed", "canceled", "blocked", "expired"}


def draw_rate(service: Service) -> float:
    """Jobs a second, from 100 that wait already."""
    client = service.client()
    for _ in range(20):
        client.wait(client.submit(JOB, os.urandom(8).hex()).json["request_id"])
    began = time.monotonic()
    jobs = [client.submit(JOB, os.urandom(8).hex()).json["request_id"] for _ in range(100)]
    client.wait(jobs[-1])
    return len(jobs) / (time.monotonic() - began)


class Offer(threading.Thread):
    """Submits to one tier at a steady rate and keeps what was accepted."""

    def __init__(self, service: Service, tier: str, rate: float, until: float):
        super().__init__()
        self.client = service.client(key=service.new_key("soak-" + tier, tier))
        self.tier, self.rate, self.until = tier, rate, until
        self.accepted, self.answers, self.bad = [], collections.Counter(), []

    def run(self):
        due = time.monotonic()
        while due < self.until:
            time.sleep(max(0.0, due - time.monotonic()))
            due = max(due + 1 / self.rate, time.monotonic() - 1)
            answer = self.client.submit(JOB, os.urandom(8).hex())
            self.answers[answer.status] += 1
            if answer.status == 202:
                self.accepted.append(answer.json["request_id"])
            elif answer.status not in (429, 503) or not 1 <= int(answer.headers["Retry-After"]) <= 120:
                self.bad.append(repr(answer))


def process_state(pid: int) -> dict:
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    kib = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))
    return {"rss_mib": kib / 1024, "files": len(os.listdir(f"/proc/{pid}/fd"))}


def watch(service: Service, until: float) -> list[dict]:
    samples = []
    while time.monotonic() < until:
        time.sleep(5)
        samples.append(process_state(service.process.pid))
    return samples


def drawn(client, jobs: list[str]) -> collections.Counter:
    return collections.Counter(client.get(job)["status"] for job in jobs)


def soak(service: Service, minutes: float, load: float) -> dict:
    rate = draw_rate(service)
    until = time.monotonic() + 60 * minutes
    offers = [Offer(service, tier, rate * load / len(TIERS), until) for tier in TIERS]
    for offer in offers:
        offer.start()
    samples = watch(service, until)
    # At the end of the offer, before the queues run dry: this is what the tiers got while all of them were full.
    usage = {offer.tier: offer.client.request("GET", "/v1/usage").json["totals"]["jobs"] for offer in offers}
    for offer in offers:
        offer.join()
    client = service.client()
    wait_until(lambda: all(t["waiting"] == 0 for t in client.request("GET", "/v1/queue").json["tiers"])
               and client.request("GET", "/v1/queue").json["running"] == 0, 600, "the queue does not empty")
    states = {offer.tier: drawn(offer.client, offer.accepted) for offer in offers}
    half = samples[len(samples) // 2:]
    quarter = max(1, len(half) // 2)
    early = statistics.mean(s["rss_mib"] for s in half[:quarter])
    late = statistics.mean(s["rss_mib"] for s in half[quarter:])
    return {
        "minutes": minutes, "load": load, "jobs_per_second": rate,
        "answers": {offer.tier: dict(offer.answers) for offer in offers},
        "wrong_answers": [answer for offer in offers for answer in offer.bad][:5],
        "ends": {tier: dict(counts) for tier, counts in states.items()},
        "not_ended": sum(n for counts in states.values() for s, n in counts.items() if s not in ENDED),
        "drawn_while_offered": usage,
        "rss_mib": {"first": samples[0]["rss_mib"], "third_quarter": early, "last_quarter": late, "growth": late / early - 1},
        "files": {"first": samples[0]["files"], "last": samples[-1]["files"], "most": max(s["files"] for s in samples)},
        "after": process_state(service.process.pid),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--load", type=float, default=1.5)
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        limits = {f"LIMNER_QUEUE_{tier.upper()}_MOST_WAITING": str(WAITING) for tier in TIERS}
        service = Service(options.program, pathlib.Path(folder) / "data", **limits).start()
        try:
            result = soak(service, options.minutes, options.load)
        finally:
            service.stop()
    text = json.dumps(result, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")
    if result["wrong_answers"] or result["not_ended"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
