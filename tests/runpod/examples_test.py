"""Runs every example of docs/runpod.md through `PROGRAM runpod --test-input`, and compares the answers.

  examples_test.py PROGRAM

An example is `<!-- example [with NAME=VALUE] [and storage] -->`, a job, and its answer; "..." in an answer is anything.
"""

import json
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import urllib.request
import zlib

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE.parent / "services"))
from fake_supabase import BUCKET, KEY, FakeSupabase  # noqa: E402

EXAMPLE = re.compile(r"<!-- example(?: with (\w+=\w+))?( and storage)? -->\n```json\n(.*?)```\n```json\n(.*?)```", re.DOTALL)
TEMPLATES = {"templates": {
    "flat": {"name": "Flat shapes", "description": "One shape on one colour",
             "checkpoint": {"filename": "miniature.safetensors", "diffusers_dir": "miniature"},
             "defaults": {"steps": 2, "width": 128, "height": 128}},
    "unbuilt": {"checkpoint": {"filename": "none.safetensors", "diffusers_dir": "none"}}}}
PNG = b"\x89PNG\r\n\x1a\n"


def small_png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return (PNG + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress((b"\0" + bytes(24)) * 8)) + chunk(b"IEND", b""))


def difference(wanted, seen, place: str = "answer") -> str:
    """The first place where `seen` is not what the document says; empty when it is."""
    if wanted == "...":
        return ""
    if isinstance(wanted, dict) and isinstance(seen, dict):
        if wanted.keys() != seen.keys():
            return f"{place}: want the fields {sorted(wanted)}, got {sorted(seen)}: {json.dumps(seen)[:600]}"
        return next(filter(None, (difference(wanted[name], seen[name], f"{place}.{name}") for name in wanted)), "")
    if isinstance(wanted, list) and isinstance(seen, list) and len(wanted) == len(seen):
        return next(filter(None, (difference(*pair, f"{place}[]") for pair in zip(wanted, seen))), "")
    return "" if wanted == seen else f"{place}: want {wanted!r}, got {json.dumps(seen)[:600]}"


def run(program: str, folder: pathlib.Path, job: dict, settings: dict) -> tuple[int, dict, str]:
    volume = folder / "volume"
    kept = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "ASAN_OPTIONS", "UBSAN_OPTIONS")
    variables = {name: os.environ[name] for name in kept if name in os.environ}
    variables |= {"OMP_NUM_THREADS": "1", "LIMNER_THREADS": "1", "LIMNER_MODELS": str(ROOT / "models"),
                  "LIMNER_LORAS": str(ROOT / "loras"), "LIMNER_RUNPOD_VOLUME": str(volume)} | settings
    done = subprocess.run([program, "runpod", "--data-dir", str(folder / "data"), "--test-input", json.dumps(job)],
                          env=variables, cwd=folder, capture_output=True, text=True, timeout=300)
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise AssertionError(f"no JSON on stdout (exit code {done.returncode}): {done.stdout[:300]}{done.stderr[-900:]}")
    if isinstance(answer.get("error"), str):
        answer["error"] = json.loads(answer["error"])
    return done.returncode, answer, done.stderr


def check_files(answer: dict, volume: pathlib.Path) -> None:
    for name in answer.get("output", {}).get("files", []):
        assert (volume / name).read_bytes().startswith(PNG), f"{name} is no PNG"
    url = answer.get("output", {}).get("image_url")
    if url:
        with urllib.request.urlopen(url) as stored:
            assert stored.read().startswith(PNG), "what is stored is no PNG"
        assert re.search(r"/limner/ada-1/\d{8}T\d{6}\.\d{3}Z-local_test\.png\?token=", url), url


def main() -> int:
    program = os.path.abspath(sys.argv[1])
    examples = EXAMPLE.findall((ROOT / "docs/runpod.md").read_text())
    assert len(examples) == (ROOT / "docs/runpod.md").read_text().count("<!-- example"), "an example is not written as one"
    supabase = {"SUPABASE_URL": f"http://127.0.0.1:{FakeSupabase().port}", "SUPABASE_SERVICE_ROLE_KEY": KEY,
                "SUPABASE_BUCKET": BUCKET}
    failed = 0
    for setting, storage, asked, wanted in examples:
        folder = pathlib.Path(tempfile.mkdtemp())
        try:
            (folder / "volume/inputs").mkdir(parents=True)
            (folder / "volume/inputs/me.png").write_bytes(small_png())
            (folder / "volume/templates.json").write_text(json.dumps(TEMPLATES))
            settings = dict([setting.split("=")] if setting else []) | (supabase if storage else {})
            code, answer, log = run(program, folder, json.loads(asked), settings)
            wrong = difference(json.loads(wanted), answer)
            assert not wrong, f"{wrong}\n{log[-600:]}"
            assert code == (0 if "output" in answer else 1), f"exit code {code}"
            check_files(answer, folder / "volume")
            print(f"as documented: {' '.join(asked.split())[:90]}", flush=True)
        except AssertionError as error:
            failed += 1
            print(f"NOT as documented: {asked}{error}", flush=True)
        finally:
            shutil.rmtree(folder)
    return 1 if failed or not examples else 0


if __name__ == "__main__":
    sys.exit(main())
