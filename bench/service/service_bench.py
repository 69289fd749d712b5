"""`limner serve` under load, beside a FastAPI + SQLite server that makes the same promise, in the same run.

    bench/service/service_bench.py build/limner [--rate 200] [--seconds 10] [--rounds 3] [--streams 1000] [--json FILE]

Accept latency is counted from the moment at which a request should have been sent, so that a server that stalls pays
for every request behind it. limner draws what it accepts meanwhile; the peer only stores it.
"""

import argparse
import asyncio
import json
import os
import pathlib
import platform
import re
import resource
import secrets
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "fault"))

from service_harness import SMALLEST, Client, Service, free_port, wait_until  # noqa: E402

ACCOUNTS = 16  # the queue lets one account have 1,000 jobs waiting


class Peer:
    """The FastAPI server, in a virtual environment of its own under /tmp."""

    def __init__(self, folder: pathlib.Path):
        environment = pathlib.Path(tempfile.gettempdir()) / "limner-fastapi-venv"
        python = environment / "bin" / "python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "fastapi", "uvicorn[standard]"], check=True)
        self.versions = subprocess.run([str(python), "-m", "pip", "freeze"], check=True, capture_output=True,
                                       text=True).stdout
        self.port, key = free_port(), secrets.token_hex(16)
        self.keys = [key]
        self.process = subprocess.Popen([str(python), str(ROOT / "bench" / "service" / "fastapi_peer.py"),
                                         str(self.port), str(folder / "peer.db"), key])
        wait_until(self.ready, 60, "the peer does not answer")

    def ready(self) -> bool:
        try:
            return Client(self.port, None).request("GET", "/readyz").status == 200
        except OSError:
            return False

    def stop(self):
        self.process.terminate()
        self.process.wait()


async def read_head(reader: asyncio.StreamReader) -> tuple[int, int]:
    """The status, and the length of the body that follows."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    length = re.search(r"content-length: *(\d+)", head, re.IGNORECASE)
    return int(head.split(" ", 2)[1]), int(length.group(1)) if length else 0


def post_bytes(port: int, key: str, number: int, tag: str) -> bytes:
    body = json.dumps({**SMALLEST, "seed": number}).encode()
    return (f"POST /v1/generations HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {key}\r\n"
            f"Idempotency-Key: {tag}-{number}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n").encode() + body


async def offer(port: int, keys: list[str], rate: float, seconds: float, tag: str) -> dict:
    """`rate` requests a second on 32 connections; latencies in milliseconds."""
    total = int(rate * seconds)
    latencies, statuses = [], {}
    begin = time.perf_counter() + 0.2
    numbers = iter(range(total))

    async def connection():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in numbers:
            due = begin + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            writer.write(post_bytes(port, keys[number % len(keys)], number, tag))
            status, length = await read_head(reader)
            await reader.readexactly(length)
            latencies.append((time.perf_counter() - due) * 1000)
            statuses[status] = statuses.get(status, 0) + 1
        writer.close()

    await asyncio.gather(*(connection() for _ in range(32)))
    ordered = sorted(latencies)
    return {"p50_ms": ordered[len(ordered) // 2], "p99_ms": ordered[int(len(ordered) * 0.99)],
            "max_ms": ordered[-1], "statuses": statuses}


def resident_kib(process: int) -> int:
    status = pathlib.Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmRSS:\s*(\d+)", status).group(1))


async def open_streams(service: Service, job: str, count: int) -> dict:
    """What each of `count` open event streams of one job costs the server."""
    before = resident_kib(service.process.pid)
    streams = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write((f"GET /v1/generations/{job}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                      f"Authorization: Bearer {service.key}\r\n\r\n").encode())
        status, _ = await read_head(reader)
        assert status == 200, status
        await reader.readuntil(b"event:")
        streams.append((reader, writer))
    await asyncio.sleep(1)
    after = resident_kib(service.process.pid)
    for _, writer in streams:
        writer.close()
    return {"streams": count, "kib_per_stream": round((after - before) / count, 1)}


def accept_to_start(service: Service, jobs: int = 60) -> dict:
    """Of jobs that find the worker idle: the time from their acceptance to their start."""
    waits = []
    client = service.client()
    for number in range(jobs):
        job = client.submit({**SMALLEST, "seed": number}, f"idle-{number}").json["request_id"]
        shown = client.wait(job)
        assert shown["status"] == "completed", shown
        waits.append(shown["timings"]["queue_ms"])
        time.sleep(0.05)
    waits.sort()
    return {"p50_ms": statistics.median(waits), "p95_ms": waits[int(len(waits) * 0.95)]}


def disk_sync(folder: pathlib.Path) -> dict:
    """What the disk asks for 4 KiB that are to survive a power cut: no accept can be quicker."""
    times = []
    with open(folder / "sync", "wb", buffering=0) as file:
        for _ in range(200):
            begin = time.perf_counter()
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - begin) * 1000)
    times.sort()
    return {"p50_ms": times[100], "p99_ms": times[198]}


def best(rounds: list[dict]) -> dict:
    return min(rounds, key=lambda one: one["p99_ms"])


def processor() -> str:
    text = pathlib.Path("/proc/cpuinfo").read_text()
    name = re.search(r"model name\s*:\s*(.*)", text)
    return f"{name.group(1) if name else platform.machine()}, {os.cpu_count()} CPUs"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit, 65536), limit))
    with tempfile.TemporaryDirectory(prefix="limner-bench-") as name:
        folder = pathlib.Path(name)
        service, peer = Service(arguments.program, folder / "data"), None
        try:
            result = {"cpu": processor(), "load_before": os.getloadavg()[0], "disk_sync": disk_sync(folder)}
            peer = Peer(folder)
            service.start()
            result["accept_to_start"] = accept_to_start(service)
            keys = [service.new_key(f"account{number}", "relax") for number in range(ACCOUNTS)]
            rounds = {"limner": [], "fastapi": []}
            for number in range(arguments.rounds):
                for who, port, theirs in (("fastapi", peer.port, peer.keys), ("limner", service.port, keys)):
                    seen = asyncio.run(offer(port, theirs, arguments.rate, arguments.seconds, f"{who}{number}"))
                    print(who, seen, flush=True)
                    rounds[who].append(seen)
            result["accept"] = {"rate": arguments.rate, **{who: best(seen) for who, seen in rounds.items()}}
            ours, theirs = result["accept"]["limner"], result["accept"]["fastapi"]
            result["accept"]["ratio"] = {p: round(ours[p] / theirs[p], 2) for p in ("p50_ms", "p99_ms")}
            # Behind all that was offered, so that it waits while the streams are open.
            last = service.client(key=keys[0]).submit(SMALLEST, "last").json["request_id"]
            service.key = keys[0]
            result["event_streams"] = asyncio.run(open_streams(service, last, arguments.streams))
            result["peer_versions"] = [line for line in peer.versions.split() if re.match("fastapi|uvicorn", line)]
        finally:
            service.stop()
            if peer:
                peer.stop()
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
