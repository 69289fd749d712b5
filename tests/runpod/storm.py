"""Many jobs through a control plane on which everything goes wrong at random, and a worker that may end at random too.

  storm.py PROGRAM [--jobs N] [--kills N] [--drains N] [--rate 0.1] [--seed 1] [--output FILE]

Faults (plane_types.Storm): answers that are late, cut or lost, connections that break before or after a request counts,
statuses 400 to 504, jobs handed out twice. Clients cancel some jobs at any moment and repeat what ends with a retryable
error. Workers are killed (--kills) or told to end (--drains) at random moments; the plane gives a worker up whose pings
stop, and hands its jobs out again. Every job has to end once: completed with the very pixels that its seed gives
everywhere, or cancelled without an answer after the worker knew. An answer that the worker sends again is no second one
while the plane has not told it, by a whole 200, that it was taken: that is all that the worker, or the SDK, can know.
"""

import argparse
import collections
import heapq
import json
import pathlib
import random
import signal
import sys
import tempfile
import time

from control_plane import FINAL, ControlPlane
from endurance import SMALLEST, Samples, WorkerProcess, machine, pictures, pixels, write_results
from plane_types import GRACE, Job, Storm
from workers import LimnerWorker

CONCURRENCY = 4
CANCELLED = 0.03  # of the jobs
WAITING = 40  # jobs that are submitted and not ended
SETTLED = 3 * GRACE  # seconds after a job's end until it is judged and forgotten
UNTOLD = 60.0  # seconds for an answer to be sent again whose taking the worker does not know of
SILENT = 6.0  # seconds without a ping until the plane gives a worker up
EARLY, LIFE = 0.15, 2.0  # of the workers that end at random: how many do before they are ready; seconds after that
PATIENCE = 240.0  # seconds without any job ending
# With a worker that ends at random, some jobs are long enough to be in the middle of.
LONGER = {**SMALLEST, "width": 128, "height": 128, "steps": 10, "num_images": 2}


class Judge:
    def __init__(self):
        self.ends, self.problems, self.pictures = collections.Counter(), [], {}
        self.late = self.again = 0

    def __call__(self, job: Job) -> None:
        self.ends[job.status.lower()] += 1
        self.late += len(job.late)
        self.again += max(0, job.takes - 1)
        why = self.wrong(job)
        if why:
            self.problems.append(f"{job.id} {job.status}: {why}")

    def wrong(self, job: Job) -> str:
        if job.duplicates:
            return f"{job.duplicates} answers after one that the worker knew to be taken"
        if job.after_stop:
            return "an answer although the worker knew that its client wants none"
        if job.status == "CANCELLED":
            return ""
        if job.status != "COMPLETED":
            self.ends["failed: " + json.loads(job.error)["code"]] += 1
            # Three answers of 400 to one text are what the worker takes for a refusal.
            return "" if "result_refused" in job.error else f"{job.error}"
        if len(job.results) != 1 + job.retries:
            return f"{len(job.results)} answers counted"
        try:
            drawn = [pixels(picture) for picture in pictures(job.output)]
        except (AssertionError, KeyError, ValueError) as error:
            return f"completed without its pictures: {error}"
        key = json.dumps(job.request["input"], sort_keys=True)
        return "" if self.pictures.setdefault(key, drawn) == drawn else "other pictures than elsewhere for its seed"


def told(job: Job) -> bool:
    """Nothing more will come: the worker knows that its answer was taken, or nobody waits for one."""
    return job.acknowledged or job.status == "CANCELLED" or job.ended_at < time.time() - UNTOLD


class Run:
    def __init__(self, chosen: argparse.Namespace, folder: pathlib.Path):
        self.chosen, self.folder = chosen, folder
        self.random, self.judge = random.Random(chosen.seed), Judge()
        self.plane = ControlPlane(hold=1.0, tracing=False)
        self.storm = self.plane.storm = Storm(chosen.rate, chosen.seed)
        self.worker, self.samples = None, None
        self.submitted = self.started = self.lost_while_ending = self.repeated = 0
        self.cancels: list[tuple[float, str]] = []
        self.ends_to_come = ["kill"] * chosen.kills + ["drain"] * chosen.drains
        self.random.shuffle(self.ends_to_come)
        self.end_at: float | None = None
        self.exits = collections.Counter()

    # -- what goes in --

    def feed(self) -> None:
        with self.plane.changed:
            waiting = sum(job.status not in FINAL for job in self.plane.jobs.values())
        for _ in range(WAITING - waiting):
            if self.submitted >= self.chosen.jobs and not self.ends_to_come:
                return
            kind = LONGER if self.chosen.kills + self.chosen.drains and self.submitted % 3 == 0 else SMALLEST
            job = self.plane.submit({"input": {**kind, "seed": self.submitted % 7}})
            self.submitted += 1
            if self.random.random() < CANCELLED:
                heapq.heappush(self.cancels, (time.monotonic() + self.random.uniform(0, 1.5), job))

    def cancel_some(self) -> None:
        while self.cancels and self.cancels[0][0] < time.monotonic():
            with self.plane.changed:
                job = self.plane.jobs.get(heapq.heappop(self.cancels)[1])
                if job:
                    self.plane.cancel(job)

    # -- what comes out --

    def look(self) -> int:
        """Repeats, judges and forgets what has ended; how many there were."""
        before = time.time() - SETTLED
        with self.plane.changed:
            self.plane.lose_silent(SILENT)
            ended = [job for job in self.plane.jobs.values() if job.status in FINAL]
            for job in ended:
                if job.status == "FAILED" and json.loads(job.error).get("retryable"):
                    self.repeated += 1
                    self.plane.retry(job)
            settled = [job for job in ended if job.status in FINAL and job.ended_at < before and told(job)]
            for job in settled:
                self.judge(job)
                del self.plane.jobs[job.id]
        return len(settled)

    # -- the worker --

    def keep_worker(self) -> None:
        """Starts it, or ends it when it is time for that."""
        if self.worker is None:
            self.started += 1
            self.worker = WorkerProcess(LimnerWorker(self.chosen.program), self.plane, f"worker-{self.started}",
                                        self.folder, CONCURRENCY, LIMNER_DRAIN_SECONDS="20")
            # Some end before they are ready.
            self.end_at = time.monotonic() + self.random.uniform(0, 1) if self.random.random() < EARLY else None
        if self.end_at is None and self.worker.name in self.plane.workers:
            self.end_at = time.monotonic() + self.random.uniform(0, LIFE)
        code = self.worker.process.poll()
        if code is not None:
            self.ended(code, expected=False)
        elif self.ends_to_come and self.end_at and time.monotonic() > self.end_at:
            kind = self.ends_to_come.pop()
            self.worker.process.send_signal(signal.SIGKILL if kind == "kill" else signal.SIGTERM)
            self.ended(self.worker.process.wait(60), expected=True, kind=kind)

    def ended(self, code: int, expected: bool, kind: str = "by itself") -> None:
        self.exits[f"{kind}: {code}"] += 1
        if not expected:
            self.judge.problems.append(f"the worker ended by itself with {code}")
        if kind == "drain" and code == 0:
            with self.plane.changed:
                self.lost_while_ending += len(self.plane.held_by(self.worker.name))
        self.worker = None

    def tell(self) -> dict:
        began, last_end, sampled = time.monotonic(), time.monotonic(), 0.0
        while self.submitted < self.chosen.jobs or self.ends_to_come or self.plane.jobs:
            self.keep_worker()
            self.feed()
            self.cancel_some()
            if self.look():
                last_end = time.monotonic()
            if self.worker and not self.chosen.kills + self.chosen.drains and time.monotonic() > sampled + 1:
                sampled = time.monotonic()
                self.samples = self.samples or Samples(self.worker)
                self.samples.add()
            if time.monotonic() > last_end + PATIENCE:
                states = collections.Counter(job.status for job in self.plane.jobs.values())
                self.judge.problems.append(f"nothing ends any more; there are {dict(states)}")
                break
            time.sleep(0.05)
        self.plane.storm = None
        if self.worker:
            self.exits[f"at the end: {self.worker.end()}"] += 1
        return self.report(time.monotonic() - began)

    def report(self, seconds: float) -> dict:
        problems = self.judge.problems
        if self.plane.strays:
            problems.append(f"{self.plane.strays} answers came long after their jobs had ended")
        if self.samples and len(self.samples.memory) >= 30:
            problems += self.samples.problems(growth=1.1)
        return {
            "command": " ".join(["tests/runpod/storm.py PROGRAM", *sys.argv[2:]]), "machine": machine(),
            "jobs": self.submitted, "ended": dict(self.judge.ends), "problems": problems[:20],
            "problems in all": len(problems),
            "handed out again": self.judge.again, "answers that came late and were not counted": self.judge.late,
            "repeated by clients after a retryable error": self.repeated,
            "workers started": self.started, "exits": dict(self.exits),
            "handed to a worker that was leaving, given again after missed pings": self.lost_while_ending,
            "faults": dict(sorted(self.storm.told.items())), "seconds": round(seconds, 1),
            **(self.samples.report() if self.samples else {})}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--drains", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=pathlib.Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(chosen, pathlib.Path(folder))
        try:
            results = run.tell()
        finally:
            if run.worker and run.worker.process.poll() is None:
                run.worker.process.kill()
            run.plane.close()
        write_results(chosen.output, results)
        if results["problems"]:
            print("--- the worker's log ends ---\n" + (run.folder / "worker.log").read_text(errors="replace")[-3000:])
    return 1 if results["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
