"""Cold start of a serverless worker: from the start of its process to the first job it asks for, and its first pictures.

    bench/cold_start.py build/limner models/miniature --tries 5
    bench/cold_start.py build/limner /tmp/sdxl --width 256 --height 256 --steps 2 --tries 2 --json FILE

limner beside a Python worker (RunPod's SDK around diffusers), taking turns at the control plane of tests/runpod; the
model's files are read once before, so that they are in the page cache. Each figure is the least of all tries. "First
over second" is how much of getting ready the first picture still pays for. On a busy machine look at the processor time
of the worker's process: it shows less of what else runs.
"""

import argparse
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/runpod"))
from control_plane import ControlPlane  # noqa: E402
from plane_types import FINAL  # noqa: E402

PICTURES = 3
PROMPT = "a red circle above a blue square on a white background"


def cpu() -> str:
    text = pathlib.Path("/proc/cpuinfo").read_text()
    units = [unit for unit in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {unit} " in text]
    return f"{re.search('model name.*: (.*)', text).group(1)}, {os.cpu_count()} CPUs, {' '.join(units)}"


class Limner:
    def __init__(self, args):
        self.command = [args.limner.resolve(), "runpod", "--data-dir", "data"]
        self.variables = {"LIMNER_MODELS": str(args.model.parent), "LIMNER_MODEL": args.model.name,
                          "LIMNER_ENGINE_DTYPE": args.dtype, "LIMNER_THREADS": str(args.threads)}


class Diffusers:
    def __init__(self, args):
        self.command = [ROOT / ".venv/bin/python", ROOT / "bench/peers/runpod_peer.py", args.model, "--dtype", args.dtype,
                        "--threads", str(args.threads)]
        packages = next((ROOT / ".cache/runpod-venv/lib").glob("python*/site-packages"), None)
        if packages is None or not self.command[0].exists():
            raise SystemExit("cold_start: run tests/runpod/sdk_test.py and script/parity-venv first: they fetch the packages")
        self.variables = {"PYTHONPATH": str(packages)}


def read_once(model: pathlib.Path) -> int:
    """Bytes of its files, now in the page cache."""
    total = 0
    for file in model.rglob("*.safetensors"):
        with open(file, "rb") as stream:
            while block := stream.read(1 << 24):
                total += len(block)
    return total


def processor_time(process: int) -> float:
    fields = pathlib.Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def draw(plane: ControlPlane, process: int, job: dict) -> tuple[float, float]:
    """Seconds, and seconds of processor time."""
    began, worked = time.perf_counter(), processor_time(process)
    name = plane.submit({"input": job})
    if not plane.wait(lambda: plane.jobs[name].status in FINAL, 600) or plane.jobs[name].status != "COMPLETED":
        raise SystemExit(f"cold_start: no picture: {plane.jobs[name].error}")
    return time.perf_counter() - began, processor_time(process) - worked


def start(worker, job: dict, threads: int) -> dict[str, float]:
    with ControlPlane(hold=5) as plane, tempfile.TemporaryDirectory() as folder:
        variables = {"PATH": os.environ["PATH"], "HOME": folder, "OMP_NUM_THREADS": str(threads),
                     "RUNPOD_SKIP_GPU_CHECK": "true", "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true"}
        variables |= plane.environment("cold") | worker.variables
        log = open(pathlib.Path(folder) / "log", "w+")
        began = time.perf_counter()
        process = subprocess.Popen([str(part) for part in worker.command], cwd=folder, env=variables, stdout=log,
                                   stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            if not plane.wait(lambda: plane.seen("take"), 600):
                log.seek(0)
                raise SystemExit(f"cold_start: {worker.command[0]} asks for no job: {log.read()[-2000:]}")
            figures = {"ready, s": time.perf_counter() - began, "ready, processor s": processor_time(process.pid)}
            # Prompts of their own: an encoded prompt is kept.
            first, *later = [draw(plane, process.pid, job | {"prompt": f"{PROMPT}, {index}"}) for index in range(PICTURES)]
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # the SDK's pings have a process of their own
            process.wait()
            log.close()
        wall, worked = (min(times) for times in zip(*later))
        return figures | {"first picture, s": first[0], "second picture, s": wall,
                          "first picture, processor s": first[1], "second picture, processor s": worked}


def best(tries: list[dict[str, float]]) -> dict[str, float]:
    least = {name: min(one[name] for one in tries) for name in tries[0]}
    for unit in ("s", "processor s"):
        least[f"first over second, {unit}"] = least[f"first picture, {unit}"] / least[f"second picture, {unit}"]
    return {name: round(value, 3) for name, value in least.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("limner", type=pathlib.Path)
    parser.add_argument("model", type=pathlib.Path, help="a diffusers folder")
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--width", type=int)
    parser.add_argument("--height", type=int)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tries", type=int, default=3)
    parser.add_argument("--only", choices=["limner", "diffusers"])
    parser.add_argument("--json", type=pathlib.Path, help="adds the figures to this file, below the model's name")
    args = parser.parse_args()
    args.model = args.model.resolve()
    size = {name: getattr(args, name) for name in ("width", "height") if getattr(args, name)}
    job = {"seed": 7, "steps": args.steps, **size}
    workers = {name: make(args) for name, make in (("limner", Limner), ("diffusers", Diffusers))
               if args.only in (None, name)}
    weights = read_once(args.model)
    tries = {name: [] for name in workers}
    for _ in range(args.tries):
        for name, worker in workers.items():
            tries[name].append(start(worker, job, args.threads))
            print(name, {key: round(value, 3) for key, value in tries[name][-1].items()}, file=sys.stderr, flush=True)
    figures = {"weights, GB": round(weights / 1e9, 2), "dtype": args.dtype, "job": job, "tries": args.tries, "cpu": cpu(),
               "load average": round(os.getloadavg()[0], 1)} | {name: best(all_) for name, all_ in tries.items()}
    if len(workers) == 2:
        figures["limner over diffusers"] = {name: round(figures["limner"][name] / figures["diffusers"][name], 2)
                                            for name in figures["limner"]}
    print(json.dumps(figures, indent=2))
    if args.json:
        known = json.loads(args.json.read_text()) if args.json.exists() else {}
        args.json.write_text(json.dumps(known | {args.model.name: figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
