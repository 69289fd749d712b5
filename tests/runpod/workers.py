"""The workers that are told the scenarios: how each is started, asked for a kind of job, and its output read."""

import base64
import os
import pathlib
import sys

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


class LimnerWorker:
    """`limner runpod` with the model `miniature`. Its jobs get slow and large by steps, size and number."""
    is_reference, keeps_results = False, True
    inputs = {
        "plain": {"steps": 2}, "progress": {"steps": 12, "progress": True}, "slow": {"steps": 150, "num_images": 2},
        "very slow": {"steps": 150, "num_images": 16}, "error": {"steps": "two"},
        "stream": {"steps": 2, "num_images": 3, "stream": True},
        "large": {"steps": 1, "num_images": 8, "width": 1024, "height": 1024},
    }

    def __init__(self, program: str):
        self.program = os.path.abspath(program)

    def command(self, mode: str, concurrency: int) -> list[str]:
        if mode == "aggregate":
            raise Unsupported("streamed pictures always stand in the result too")
        refresh = ["--refresh-worker"] if mode == "refresh" else []
        return [self.program, "runpod", "--data-dir", "data", *refresh]

    def environment(self, mode: str, concurrency: int) -> dict[str, str]:
        unfit = {"RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "", "RUNPOD_MIN_MEMORY_GB": "900000"} if mode == "unfit" else {}
        settings = {"LIMNER_MODELS": str(ROOT / "models"), "LIMNER_WORKERS": str(concurrency), "LIMNER_THREADS": "1"}
        return settings | unfit

    def input(self, kind: str) -> dict:
        if kind not in self.inputs:
            raise Unsupported(f"jobs of kind {kind}")
        return {"prompt": "a red circle", "seed": 7, **self.inputs[kind]}

    def check_output(self, output: dict) -> None:
        assert output["images"] and all(base64.b64decode(image).startswith(PNG) for image in output["images"])
