"""One worker beside one control plane, and how a scenario is told to it and judged."""

import json
import os
import pathlib
import signal
import subprocess
import tempfile
import traceback
import urllib.error
import urllib.request

from compare import difference, reduced, written_trace
from control_plane import CLIENT_KEY, ENDPOINT, FINAL, ControlPlane
from workers import Unsupported

HERE = pathlib.Path(__file__).resolve().parent
WORKER = "worker-under-test"


class Run:
    """One worker beside one control plane."""

    def __init__(self, worker, story, folder: pathlib.Path):
        self.worker, self.story, self.log = worker, story, folder / "worker.log"
        self.command = worker.command(story.mode, story.concurrency)
        self.plane = ControlPlane(**story.plane)
        self.jobs: list[str] = []
        self.process = None
        self.folder = folder

    def start(self) -> None:
        variables = {name: value for name, value in os.environ.items() if not name.startswith("RUNPOD_")}
        # A home of its own: the SDK prefers the key of ~/.runpod/config.toml to the environment's.
        variables |= {"HOME": str(self.folder), "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
                      "RUNPOD_SKIP_GPU_CHECK": "true", "OMP_NUM_THREADS": "1"}
        variables |= self.plane.environment(WORKER) | self.worker.environment(self.story.mode, self.story.concurrency)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, env=variables, cwd=self.folder, stdout=log, stderr=log,
                                            stdin=subprocess.DEVNULL, start_new_session=True)

    def submit(self, kind: str = "plain", **request) -> str:
        self.jobs.append(self.plane.submit({"input": self.worker.input(kind)} | request))
        return self.jobs[-1]

    def job(self, job_id: str):
        return self.plane.jobs[job_id]

    def ended(self, *jobs: str, seconds: float = 60) -> None:
        for job_id in jobs:
            came = self.plane.wait(lambda: self.job(job_id).status in FINAL, seconds)
            assert came, f"job {self.jobs.index(job_id) + 1} is {self.job(job_id).status} after {seconds} s"

    def completed(self, *jobs: str, seconds: float = 60) -> None:
        self.ended(*jobs, seconds=seconds)
        for job_id in jobs:
            job = self.job(job_id)
            assert job.status == "COMPLETED", f"{job.status}: {job.error}"
            assert len(job.results) == 1, f"{len(job.results)} results"
            self.worker.check_output(job.output)

    def running(self, job_id: str) -> None:
        assert self.plane.wait(lambda: self.job(job_id).status == "IN_PROGRESS", 60), "the job is not taken"

    def named_by_ping(self, *jobs: str) -> None:
        def named() -> bool:
            texts = [dict(exchange.query).get("job_id", "") for exchange in self.plane.seen("ping")]
            return any(set(jobs) <= set(text.split(",")) for text in texts)
        assert self.plane.wait(named), "no ping names the jobs"

    def ask(self, method: str, path: str, body=None, status: int = 200) -> dict:
        request = urllib.request.Request(f"{self.plane.url}/v2/{ENDPOINT}/{path}", method=method,
                                         data=json.dumps(body).encode() if body is not None else None,
                                         headers={"Authorization": f"Bearer {CLIENT_KEY}"})
        try:
            with urllib.request.urlopen(request, timeout=100) as answer:
                code, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            code, text = error.code, error.read()
        assert code == status, f"{method} {path}: {code}, want {status}: {text[:300]!r}"
        return json.loads(text)

    def exits(self, seconds: float = 30) -> int:
        return self.process.wait(seconds)

    def terminate(self, seconds: float = 30) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.exits(seconds)

    def close(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)  # the SDK's pings have a process of their own
                self.process.wait()
        self.plane.close()

    def trace(self) -> dict:
        return written_trace(self.plane, WORKER, self.jobs, self.story.channels)


def compared(run: Run, name: str, write: bool) -> None:
    file, seen = HERE / "traces" / f"{name}.json", run.trace()
    if write:
        file.write_text(json.dumps(seen, indent=1, sort_keys=True) + "\n")
        return
    wanted = json.loads(file.read_text())
    if not run.worker.is_reference:
        if run.story.sdk_loses:
            return
        wanted, seen = reduced(wanted), reduced(seen)
    assert not (found := difference(wanted, seen)), f"not as the SDK's trace: {found}"


def tell(worker, story, write: bool) -> str:
    """What came of it: "passed", "left out: why", or "FAILED: why" with the end of the worker's log."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            run = Run(worker, story, pathlib.Path(folder))
        except Unsupported as reason:
            return f"left out: {reason}"
        try:
            story(run)
            run.close()
            compared(run, story.__name__, write)
            return "passed"
        except Unsupported as reason:
            return f"left out: {reason}"
        except (AssertionError, KeyError, ValueError, OSError, subprocess.TimeoutExpired):
            log = run.log.read_text(errors="replace")[-1500:] if run.log.exists() else ""
            return f"FAILED\n{traceback.format_exc()}\n--- the worker's log ends ---\n{log}"
        finally:
            run.close()
