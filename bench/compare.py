"""limner beside diffusers on the same machine, in the same run, taking turns; prints a table of ratios.

    script/bench peers MODEL --width 512 --height 512 --steps 4
    script/bench peers models/miniature --steps 12 --cold-steps 12

A ratio is limner's figure over the peer's: below 1 limner is better. Each process's best round counts.
"""

import argparse
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
PEER = ROOT / "bench" / "peers" / "diffusers_peer.py"
PROMPT = "a red circle above a blue square on a white background"


def cpu():
    """The processor's name, and whether it multiplies 16-bit floats by itself: that decides what to compare with."""
    text = pathlib.Path("/proc/cpuinfo").read_text()
    name = re.search(r"model name\s*:\s*(.*)", text)
    flags = set((re.search(r"flags\s*:\s*(.*)", text) or re.match("()", "")).group(1).split())
    units = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16") if flag in flags]
    native = {"avx512_bf16", "amx_bf16"} & flags
    return (f"{name.group(1) if name else platform.machine()}, {os.cpu_count()} CPUs, {' '.join(units)}; "
            f"{'has' if native else 'has no'} bfloat16 arithmetic of its own")


def run_json(command, threads):
    """The last line of the command's output as JSON, with the wall time added as wall_ms."""
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
    begin = time.perf_counter()
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=environment)
    wall = (time.perf_counter() - begin) * 1000
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}\nexit code {done.returncode}: {done.stderr.strip()[-2000:]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]), wall_ms=wall)


def settings(args, steps):
    options = ["--steps", steps, "--threads", args.threads, "--guidance-scale", args.guidance_scale]
    for name in ("width", "height"):
        if getattr(args, name):
            options += ["--" + name, getattr(args, name)]
    return options


def limner_round(args, folder):
    stages = run_json([args.limner, "bench", "--model", args.model, "--dtype", args.dtype, "--json",
                       *settings(args, args.steps)], args.threads)
    cold = run_json([args.limner, "generate", args.prompt, "--model", args.model, "--dtype", args.dtype, "--json",
                     "--seed", 0, "--output", f"{folder}/limner.png", *settings(args, args.cold_steps)], args.threads)
    return figures(stages, cold)


def peer_round(args, dtype, folder):
    common = [sys.executable, PEER, args.model, "--dtype", dtype, "--prompt", args.prompt]
    stages = run_json([*common, *settings(args, args.steps), "--decodes", args.decodes], args.threads)
    cold = run_json([*common, "--cold", "--output", f"{folder}/peer.png", *settings(args, args.cold_steps)],
                    args.threads)
    return figures(stages, cold)


def figures(stages, cold):
    return {"load, ms": stages["load_ms"], "encode, ms": stages["encode_ms"], "step, ms": stages["step_ms"]["min"],
            "step median, ms": stages["step_ms"]["median"], "VAE decode, ms": stages["decode_ms"]["min"],
            "peak memory, MB": stages["peak_rss_bytes"] / 1e6, "cold process to picture, ms": cold["wall_ms"]}


def best(rounds):
    return {name: min(figures[name] for figures in rounds) for name in rounds[0]}


def print_table(limner, peers):
    head = "".join(f"{'diffusers ' + dtype:>22}{'ratio':>8}" for dtype in peers)
    print(f"{'':30}{'limner':>12}{head}")
    for name, ours in limner.items():
        row = "".join(f"{theirs[name]:22.1f}{ours / theirs[name]:8.2f}" for theirs in peers.values())
        print(f"{name:30}{ours:12.1f}{row}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["peers"])
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--width", type=int)
    parser.add_argument("--height", type=int)
    parser.add_argument("--steps", type=int, default=4, help="steps to time; the peer's first is not counted")
    parser.add_argument("--cold-steps", type=int, default=1, help="steps of the picture drawn by a cold process")
    parser.add_argument("--guidance-scale", type=float, default=7.5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="bfloat16", help="limner's --dtype")
    parser.add_argument("--peer-dtypes", default="bfloat16,float32",
                        help="diffusers computes in these; on a CPU without bfloat16 units its float32 is the fair one")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--decodes", type=int, default=2)
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--limner", type=pathlib.Path, default=ROOT / "build" / "limner")
    parser.add_argument("--json", type=pathlib.Path, help="write the figures here too")
    args = parser.parse_args()
    dtypes = args.peer_dtypes.split(",")

    ours, theirs = [], {dtype: [] for dtype in dtypes}
    with tempfile.TemporaryDirectory(prefix="limner-bench-") as folder:
        for number in range(args.rounds):
            print(f"round {number + 1} of {args.rounds}: limner", file=sys.stderr)
            ours.append(limner_round(args, folder))
            for dtype in dtypes:
                print(f"round {number + 1} of {args.rounds}: diffusers {dtype}", file=sys.stderr)
                theirs[dtype].append(peer_round(args, dtype, folder))
    limner, peers = best(ours), {dtype: best(rounds) for dtype, rounds in theirs.items()}
    size = f"{args.width or 'native'}x{args.height or 'native'}"
    print(f"{args.model}, {size}, guidance {args.guidance_scale:g}, {args.threads} threads, "
          f"limner --dtype {args.dtype}")
    print(f"CPU: {cpu()}; load average {os.getloadavg()[0]:.1f}")
    print_table(limner, peers)
    if args.json:
        report = {"model": args.model.name, "size": size, "cpu": cpu(), "limner": limner, "diffusers": peers}
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
