"""A worker's memory and pictures over thousands of jobs, with adapters on and off in turn.

  leak.py PROGRAM [--jobs 2000] [--output FILE]

Jobs without adapters, with one and with several of fixed names, with one from a URL that is always the same, and with
one from a URL that never is. Memory and file handles have to stay flat, and the picture without adapters has to be the
same bytes at every one of its turns: an adapter leaves nothing behind in the weights.
"""

import argparse
import functools
import http.server
import pathlib
import sys
import tempfile
import threading
import time

from control_plane import FINAL, ControlPlane
from endurance import SMALLEST, Samples, WorkerProcess, machine, pictures, write_results
from workers import ROOT, LimnerWorker

LORAS = ROOT / "loras"
DRAWN = {**SMALLEST, "width": 64, "height": 64, "steps": 2, "seed": 11}
WAITING = 6
CONCURRENCY = 2


class Files(http.server.SimpleHTTPRequestHandler):
    """The files of LORAS; a query changes nothing."""

    def log_message(self, *_):
        pass


def kinds(number: int, url: str) -> tuple[str, dict]:
    """The name and the input of the job of this number; one in two is without adapters."""
    adapters = (
        ("by name", ["hollow"]), ("by name, weighted", {"moon": 0.5, "hues": 1.25}),
        ("several", [{"name": "hollow", "weight": 0.4}, {"name": "hues", "weight": -0.5}, "moon"]),
        ("by url", [{"url": f"{url}/moon.safetensors", "weight": 0.75}]),
        ("by another url every time", [{"url": f"{url}/hues.safetensors?version={number}", "weight": 0.75}]))
    if number % 2 == 0:
        return "without", DRAWN
    name, loras = adapters[number // 2 % len(adapters)]
    return name, {**DRAWN, "loras": loras}


class Run:
    def __init__(self, jobs: int, worker: WorkerProcess, plane: ControlPlane, url: str):
        self.jobs, self.worker, self.plane, self.url = jobs, worker, plane, url
        self.samples, self.problems = Samples(worker), []
        self.pictures: dict[str, bytes] = {}  # of each kind, as first drawn
        self.drawn: dict[str, int] = {}
        self.names: dict[str, str] = {}

    def feed(self, submitted: int) -> int:
        while submitted < self.jobs and len(self.names) < WAITING:
            name, asked = kinds(submitted, self.url)
            self.names[self.plane.submit({"input": asked})] = name
            submitted += 1
        return submitted

    def collect(self) -> None:
        ended = [self.plane.jobs[job] for job in self.names if self.plane.jobs[job].status in FINAL]
        for job in ended:
            with self.plane.changed:
                del self.plane.jobs[job.id]
            name = self.names.pop(job.id)
            if job.status != "COMPLETED":
                self.problems.append(f"a job {name}: {job.error}")
                continue
            drawn = pictures(job.output)[0]
            self.drawn[name] = self.drawn.get(name, 0) + 1
            # The infotext names the model's hash, which a worker that has just started does not know yet.
            if not job.output["model"]["hash"]:
                continue
            # The infotext of an adapter names its URL, so only pixels and the other kinds are the same to the byte.
            if name != "by another url every time" and self.pictures.setdefault(name, drawn) != drawn:
                self.problems.append(f"{name}, number {self.drawn[name]}: another picture than the first")

    def tell(self) -> dict:
        began, sampled, submitted = time.monotonic(), 0.0, 0
        while (submitted := self.feed(submitted)) < self.jobs or self.names:
            before = len(self.names)
            assert self.plane.wait(lambda: any(self.plane.jobs[job].status in FINAL for job in self.names), 120), \
                "no job ends"
            self.collect()
            if before and sum(self.drawn.values()) > self.jobs * 0.1 and time.monotonic() > sampled + 0.5:
                sampled = time.monotonic()
                self.samples.add()
        if len(set(self.pictures.values())) != len(self.pictures):
            self.problems.append("two kinds of jobs have the same picture")
        if len(self.samples.memory) >= 9:
            self.problems += self.samples.problems(growth=1.05)
        return {"command": " ".join(["tests/runpod/leak.py PROGRAM", *sys.argv[2:]]), "machine": machine(),
                "drawn": self.drawn, "base pictures": "equal to the byte" if not self.problems else "see problems",
                "problems": self.problems, "seconds": round(time.monotonic() - began, 1), **self.samples.report()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--output", type=pathlib.Path)
    chosen = parser.parse_args()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Files, directory=str(LORAS)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder, ControlPlane(tracing=False) as plane:
        place = pathlib.Path(folder)
        (place / "data").mkdir()
        (place / "data" / "loras").symlink_to(LORAS)
        # The adapters that come once fill the cache soon; what grows after that is a leak.
        worker = WorkerProcess(LimnerWorker(chosen.program), plane, "worker-1", place, CONCURRENCY,
                               LIMNER_ADAPTERS_CACHE="2 MiB")
        try:
            worker.ready()
            results = Run(chosen.jobs, worker, plane, f"http://127.0.0.1:{server.server_address[1]}").tell()
            assert worker.end() == 0, "the worker did not end well"
        except AssertionError:
            print((place / "worker.log").read_text(errors="replace")[-3000:])
            raise
        finally:
            worker.process.kill()
            server.shutdown()
    write_results(chosen.output, results)
    return 1 if results["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
