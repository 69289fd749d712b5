"""Adapters: limner beside a plain read of the file, and beside diffusers with PEFT.

    python bench/adapters.py MODEL_FOLDER ... [--rank 16] [--side 32] [--output bench/results/adapters.json]

Wants build/adapter_bench (`cmake --build build --target adapter_bench`) and the packages of .venv. Both get the same
adapter file: one low-rank pair for every attention and feed-forward layer of the UNet.
"""

import argparse
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent


def json_of(command):
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def measure(model, rank, side):
    # Not in /tmp, which may have no disk under it.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        result = json_of([ROOT / "build" / "adapter_bench", model, str(rank), str(side), folder])
        adapter = pathlib.Path(folder) / "adapter_0.safetensors"
        peer = json_of([sys.executable, ROOT / "bench" / "peers" / "adapter_peer.py", model, adapter])
    ours = result["from_page_cache"]["load_ms"] + result["attach_cached_ms"]
    return result | {"diffusers": peer, "times_faster_than_diffusers": peer["sum_ms"] / ours}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL_FOLDER")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--side", type=int, default=32, help="of the latents; 0 leaves the forwards out")
    parser.add_argument("--output", type=pathlib.Path)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    rows = [measure(model, options.rank, options.side) for model in options.models]
    report = {"machine": {"processor": processor(), "cores": os.cpu_count()},
              "load_average_before": load, "models": rows}
    text = json.dumps(report, indent=1)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
