"""The workers that are told the scenarios: how each is started, asked for a kind of job, and its output read."""

import base64
import functools
import http.server
import os
import pathlib
import sys
import threading

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PNG = b"\x89PNG\r\n\x1a\n"


class Unsupported(Exception):
    """The worker has no such mode or kind of job."""


class SdkWorker:
    is_reference, keeps_results = True, False
    tests = {
        "plain": {}, "slow": {"seconds": 2.5}, "very slow": {"seconds": 60}, "progress": {"progress": 3},
        "error": {"error": "prompt: want a string"}, "raise": {"raise": "out of memory"}, "stream": {"partials": 3},
        "stream error": {"partials": 1, "raise": "out of memory"}, "fails once": {"fails_once": True},
        "refresh": {"refresh": True}, "large": {"bytes": 3_000_000},
    }

    def command(self, mode: str, concurrency: int) -> list[str]:
        return [sys.executable, str(HERE / "sdk_worker.py"), "--mode", mode, "--concurrency", str(concurrency)]

    def environment(self, mode: str, concurrency: int) -> dict[str, str]:
        return {}

    def input(self, kind: str) -> dict:
        return {"prompt": "a red circle", "test": self.tests[kind]}

    def check_output(self, output: dict) -> None:
        assert output["images"] and output["seeds"] == [0], output

    def check_aggregate(self, output: list, parts: list[dict]) -> None:
        assert output == parts, "not the parts of the stream"


class OnceAbsent(http.server.BaseHTTPRequestHandler):
    """The adapter `moon` under any path, which is not there when it is asked for the first time."""
    asked: set[str] = set()

    def do_GET(self):
        known = self.path in self.asked
        self.asked.add(self.path)
        data = (ROOT / "loras" / "moon.safetensors").read_bytes() if known else b""
        self.send_response(200 if known else 404)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@functools.cache
def adapter_server() -> str:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), OnceAbsent)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}"


class LimnerWorker:
    """`limner runpod` with the model `miniature`. Its jobs get slow and large by steps, size and number."""
    is_reference, keeps_results = False, True
    inputs = {
        "plain": {"steps": 2}, "progress": {"steps": 12, "progress": True}, "slow": {"steps": 150, "num_images": 2},
        "very slow": {"steps": 150, "num_images": 16}, "error": {"steps": "two"}, "raise": {"steps": "two"},
        "stream": {"steps": 2, "num_images": 3, "stream": True},
        "large": {"steps": 1, "num_images": 12, "width": 256, "height": 256},
    }
    left_out = {
        "stream error": "no input lets a picture fail after another one (runner_test.cpp does)",
        "refresh": "a job cannot ask for a fresh worker; refresh_always has what the worker says then",
    }

    def __init__(self, program: str):
        self.program = os.path.abspath(program)

    def command(self, mode: str, concurrency: int) -> list[str]:
        refresh = ["--refresh-worker"] if mode == "refresh" else []
        return [self.program, "runpod", "--data-dir", "data", *refresh]

    def environment(self, mode: str, concurrency: int) -> dict[str, str]:
        unfit = {"RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "", "RUNPOD_MIN_MEMORY_GB": "900000"} if mode == "unfit" else {}
        settings = {"LIMNER_MODELS": str(ROOT / "models"), "LIMNER_WORKERS": str(concurrency), "LIMNER_THREADS": "1",
                    "LIMNER_EGRESS_ALLOW": "127.0.0.0/8"}
        return settings | unfit

    def input(self, kind: str) -> dict:
        if kind in self.left_out:
            raise Unsupported(self.left_out[kind])
        asked = {"prompt": "a red circle", "seed": 7}
        if kind == "fails once":
            return {**asked, "steps": 2, "loras": [f"{adapter_server()}/moon.safetensors"]}
        return {**asked, **self.inputs[kind]}

    def check_output(self, output: dict) -> None:
        assert output["images"] and all(base64.b64decode(image).startswith(PNG) for image in output["images"])

    def check_aggregate(self, output: dict, parts: list[dict]) -> None:
        assert output["images"] == [part["image"] for part in parts], "not the pictures of the stream"
