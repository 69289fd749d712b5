"""What the long runs share: a worker process under a control plane, its memory and file handles, and its pictures."""

import base64
import json
import os
import pathlib
import statistics
import subprocess
import time

from control_plane import ControlPlane

PNG = b"\x89PNG\r\n\x1a\n"
# The bundled model's smallest job.
SMALLEST = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 1}


class WorkerProcess:
    """One start of `limner runpod`, told by `plane`; its log is added to `folder`/worker.log."""

    def __init__(self, worker, plane: ControlPlane, name: str, folder: pathlib.Path, concurrency: int,
                 **variables: str):
        folder.mkdir(parents=True, exist_ok=True)
        kept = {key: value for key, value in os.environ.items() if not key.startswith("RUNPOD_")}
        environment = kept | plane.environment(name) | worker.environment("plain", concurrency) | {
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true", "OMP_NUM_THREADS": "1", **variables}
        with open(folder / "worker.log", "ab") as log:
            self.process = subprocess.Popen(worker.command("plain", concurrency), env=environment, cwd=folder,
                                            stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.name, self.plane = name, plane

    def ready(self, seconds: float = 60) -> None:
        assert self.plane.wait(lambda: self.name in self.plane.workers or self.process.poll() is not None, seconds), \
            "the worker asks for nothing"
        assert self.process.poll() is None, f"the worker ended with {self.process.returncode}"

    def memory(self) -> int:
        """Bytes that are in memory and the worker's own."""
        lines = pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines)
        return int(fields["RssAnon"].split()[0]) * 1024

    def file_handles(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def end(self, seconds: float = 60) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


class Samples:
    """A worker's memory and file handles over a run."""

    def __init__(self, worker: WorkerProcess):
        self.worker, self.memory, self.handles = worker, [], []

    def add(self) -> None:
        self.memory.append(self.worker.memory())
        self.handles.append(self.worker.file_handles())

    @staticmethod
    def thirds(values: list[int]) -> list[float]:
        size = len(values) // 3
        return [statistics.median(values[number * size:(number + 1) * size]) for number in range(3)]

    def report(self) -> dict:
        memory = [round(value / 2**20, 1) for value in self.thirds(self.memory)]
        return {"samples": len(self.memory), "anonymous_memory_mib_by_thirds": memory,
                "file_handles_by_thirds": self.thirds(self.handles), "most_file_handles": max(self.handles)}

    def problems(self, growth: float) -> list[str]:
        """Empty when the last third needs at most `growth` times the memory of the middle one, and no more handles than
        come and go with the connections of the moment."""
        _, middle, last = self.thirds(self.memory)
        found = [f"memory grows: {middle / 2**20:.1f} MiB, then {last / 2**20:.1f}"] if last > growth * middle else []
        _, middle, last = self.thirds(self.handles)
        return found + ([f"file handles grow: {middle}, then {last}"] if last > middle + 4 else [])


def pictures(output: dict) -> list[bytes]:
    files = [base64.b64decode(image, validate=True) for image in output["images"]]
    assert files and len(files) == len(output["seeds"]) and all(file.startswith(PNG) for file in files), "no pictures"
    return files


def pixels(png: bytes) -> bytes:
    """Its compressed pixels, whatever its text says: the model's hash stands there as soon as it is computed."""
    found, at = b"", len(PNG)
    while at < len(png):
        size = int.from_bytes(png[at:at + 4], "big")
        found += png[at + 8:at + 8 + size] if png[at + 4:at + 8] == b"IDAT" else b""
        at += 12 + size
    assert found, "no pixels"
    return found


def write_results(file: pathlib.Path | None, results: dict) -> None:
    text = json.dumps(results, indent=1) + "\n"
    print(text, end="")
    if file:
        file.write_text(text)


def machine() -> dict:
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    return {"processor": model, "cores": os.cpu_count(), "date": time.strftime("%Y-%m-%d")}
