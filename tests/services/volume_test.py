"""`limner volume upload` against the S3 server of run.py, through a proxy that counts and fails; curl, which signs by
itself, reads back what arrived.

  run.py python3 volume_test.py LIMNER
"""

import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.parse

from fault_proxy import FaultProxy

LIMNER = pathlib.Path(sys.argv.pop(1)).resolve() if len(sys.argv) > 1 else None
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
ADAPTERS = ROOT / "tests/parity/fixtures/adapters"
MANIFEST = "limner-volume.json"
PART = 16 << 20
BIG = 2 * PART + 12_345  # three parts


class CountingProxy(FaultProxy):
    """Remembers what was asked; `pause` seconds go by before each part, `fail` says which requests get which fault. A
    forgetful one keeps no metadata of objects, as a server before a file system may not."""

    def __init__(self, target):
        super().__init__(target)
        self.asked: list[tuple[str, str]] = []
        self.pause, self.fail, self.forgetful = 0.0, {}, False
        self.chosen = threading.local()

    def take(self) -> str:
        return self.chosen.fault

    def handle(self, request):
        name = urllib.parse.unquote(request.path)
        with self.lock:
            self.asked.append((request.command, name))
            fitting = [faults for (method, part), faults in self.fail.items()
                       if request.command == method and part in name and faults]
            self.chosen.fault = fitting[0].pop(0) if fitting else "ok"
        if self.pause and "partNumber" in name:
            time.sleep(self.pause)
        if self.forgetful:
            send = request.send_header
            request.send_header = lambda key, value: None if key.lower().startswith("x-amz-meta") else send(key, value)
        super().handle(request)

    def parts(self) -> list[str]:
        return [name for method, name in self.asked if method == "PUT" and "partNumber" in name]

    def changes(self) -> list[tuple[str, str]]:
        return [(method, name.partition("?")[0]) for method, name in self.asked if method not in ("GET", "HEAD")]


def noise(size: int, seed: int) -> bytes:
    """Bytes of which no two parts are alike."""
    block = hashlib.sha256(str(seed).encode()).digest() * 512
    return b"".join(struct.pack("<Q", i) + block[8:] for i in range(size // len(block) + 1))[:size]


def safetensors(size: int, seed: int) -> bytes:
    header = json.dumps({"model.diffusion_model.x": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + noise(size, seed)


class Upload(unittest.TestCase):
    buckets = 0

    def setUp(self):
        server = urllib.parse.urlsplit(os.environ["LIMNER_TEST_S3"])
        self.proxy = CountingProxy((server.hostname, server.port))
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="limner-upload-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.volume = self.folder / "volume"
        (self.volume / "loras").mkdir(parents=True)
        (self.volume / "models").mkdir()
        shutil.copy(ADAPTERS / "lora.safetensors", self.volume / "loras/a b+c.safetensors")
        shutil.copy(ADAPTERS / "lokr.safetensors", self.volume / "loras/other.safetensors")
        (self.volume / "models/big.safetensors").write_bytes(safetensors(BIG, 1))
        Upload.buckets += 1
        self.prefix = f"volume-{Upload.buckets}"
        (self.folder / ".env").write_text(
            "# keys of the volume\nRUNPOD_S3_ACCESS_KEY=limner\nexport RUNPOD_S3_SECRET_KEY='limnersecret'\n"
            f"RUNPOD_S3_ENDPOINT=http://localhost:{self.proxy.port}\nRUNPOD_S3_REGION=us-east-1\n"
            "RUNPOD_VOLUME_ID=limner\n")
        self.set_up()

    def start(self, *arguments: str) -> subprocess.Popen:
        return subprocess.Popen([LIMNER, "volume", *arguments], cwd=self.folder, text=True, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE)

    def set_up(self) -> None:
        process = self.start("setup")
        self.assertEqual(process.wait(120), 0, process.stderr.read())

    def upload(self, *options: str, code: int = 0) -> dict | str:
        self.proxy.asked.clear()
        process = self.start("upload", "--prefix", self.prefix, "--json", *options)
        out, err = process.communicate(timeout=240)
        self.assertEqual(process.returncode, code, err)
        return json.loads(out) if code == 0 else json.loads(err)["error"]["message"]

    def stored(self, path: str) -> bytes | None:
        url = f"{os.environ['LIMNER_TEST_S3']}/limner/{self.prefix}/{urllib.parse.quote(path)}"
        got = subprocess.run(["curl", "-s", "-f", "--user", "limner:limnersecret", "--aws-sigv4", "aws:amz:us-east-1:s3",
                              "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD", url], capture_output=True)
        return got.stdout if got.returncode == 0 else None

    def assert_all_there(self) -> None:
        manifest = json.loads((self.volume / MANIFEST).read_text())
        for path, entry in manifest["files"].items():
            content = self.stored(path)
            self.assertIsNotNone(content, path)
            self.assertEqual(hashlib.sha256(content).hexdigest(), entry["sha256"], path)
        self.assertEqual(self.stored(MANIFEST), (self.volume / MANIFEST).read_bytes())

    def test_everything_arrives_and_the_manifest_last(self):
        dry = self.upload("--dry-run")
        self.assertEqual(dry["changed"], ["loras/a b+c.safetensors", "loras/other.safetensors",
                                          "models/big.safetensors"])
        self.assertEqual(self.proxy.changes(), [])
        done = self.upload()
        self.assertEqual(done["changed"], dry["changed"])
        self.assertEqual(done["sent_parts"], 5)
        self.assert_all_there()
        method, name = self.proxy.changes()[-1]
        self.assertEqual((method, name), ("PUT", f"/limner/{self.prefix}/{MANIFEST}"))
        self.assertFalse(list(self.volume.glob(".limner-upload*")))

    def test_only_what_changed_is_sent(self):
        self.upload()
        again = self.upload()
        self.assertEqual((again["changed"], again["unchanged"]), ([], 3))
        self.assertEqual(self.proxy.changes(), [])
        # Other times and the same bytes; the same size and other bytes.
        os.utime(self.volume / "models/big.safetensors", (1, 1))
        content = bytearray((self.volume / "loras/other.safetensors").read_bytes())
        content[-1] ^= 1
        (self.volume / "loras/other.safetensors").write_bytes(content)
        self.assertIn("is not what limner-volume.json says", self.upload(code=2))
        self.set_up()
        self.assertEqual(self.upload()["changed"], ["loras/other.safetensors"])
        self.assertEqual([name.rpartition("/")[2] for method, name in self.proxy.changes() if method == "PUT"],
                         ["other.safetensors", MANIFEST])
        self.assert_all_there()

    def test_a_killed_upload_goes_on_without_sending_finished_parts_again(self):
        (self.volume / "models/big.safetensors").write_bytes(safetensors(6 * PART + 1, 1))
        self.set_up()
        self.proxy.pause = 0.4
        process = self.start("upload", "--prefix", self.prefix)
        while len(self.proxy.parts()) < 7:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        time.sleep(1)  # what had arrived at the proxy is passed on
        self.assertIsNone(self.stored("models/big.safetensors"), "half a file is never visible")
        self.assertIsNone(self.stored(MANIFEST), "an unfinished volume has no manifest")
        self.proxy.pause = 0
        done = self.upload()
        self.assertGreaterEqual(done["kept_parts"], 3)
        self.assertEqual(done["kept_parts"] + len(self.proxy.parts()), 7)
        self.assertEqual(len(set(self.proxy.parts())), len(self.proxy.parts()))
        self.assertEqual([name for method, name in self.proxy.changes() if method == "POST"],
                         [f"/limner/{self.prefix}/models/big.safetensors"], "completed, and not begun anew")
        self.assert_all_there()

    def test_an_interrupted_upload_keeps_what_has_arrived(self):
        self.proxy.pause = 0.5
        process = self.start("upload", "--prefix", self.prefix)
        while len(self.proxy.parts()) < 3:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(60), 130, process.communicate()[1])
        self.assertIsNone(self.stored(MANIFEST))
        self.assertEqual(self.upload()["sent_parts"], 0, "the parts that were on their way have arrived")
        self.assert_all_there()

    def test_without_metadata_the_manifest_and_the_note_tell_what_is_there(self):
        self.proxy.forgetful = True
        self.proxy.pause = 1
        process = self.start("upload", "--prefix", self.prefix)
        while len(self.proxy.parts()) < 3:
            time.sleep(0.02)
        time.sleep(0.5)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        self.proxy.pause = 0
        self.assertEqual(self.upload()["unchanged"], 2)
        self.assertEqual(self.upload()["unchanged"], 3)
        self.assertEqual(self.proxy.changes(), [])
        self.assert_all_there()

    def test_what_fails_on_the_way_is_sent_again(self):
        self.proxy.fail = {("PUT", "partNumber=1"): ["500"], ("PUT", "partNumber=2"): ["reset"],
                           ("PUT", "partNumber=3"): ["lost", "503"], ("POST", "uploads"): ["500"],
                           ("PUT", "other"): ["lost"]}
        done = self.upload()
        self.assertEqual(done["sent_parts"], 5)
        self.assertEqual(len(self.proxy.parts()), 3 + 4)
        self.assert_all_there()

    def test_an_answer_to_completing_that_was_lost_is_no_failure(self):
        self.proxy.fail = {("POST", "uploadId"): ["lost"]}
        self.upload()
        self.assert_all_there()

    def test_a_file_that_changed_after_an_interruption_is_sent_whole(self):
        self.proxy.fail = {("POST", "uploadId"): ["500"] * 8}
        process = self.start("upload", "--prefix", self.prefix)
        while ("POST", "uploadId") not in [(method, name[name.find("?") + 1 :][:8]) for method, name in self.proxy.asked]:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        self.proxy.fail = {}
        (self.volume / "models/big.safetensors").write_bytes(safetensors(BIG, 2))
        self.set_up()
        done = self.upload()
        self.assertEqual((done["kept_parts"], len(self.proxy.parts())), (0, 3))
        self.assertIn("DELETE", [method for method, name in self.proxy.asked if "uploadId" in name])
        self.assert_all_there()

    def test_what_is_gone_stays_until_it_is_asked_to_go(self):
        self.upload()
        (self.volume / "loras/other.safetensors").unlink()
        self.set_up()
        self.upload()
        self.assertIsNotNone(self.stored("loras/other.safetensors"))
        gone = f"{self.prefix}/loras/other.safetensors"
        self.assertEqual(self.upload("--dry-run", "--delete")["removed"], [gone])
        self.assertIsNotNone(self.stored("loras/other.safetensors"))
        self.assertEqual(self.upload("--delete")["removed"], [gone])
        self.assertIsNone(self.stored("loras/other.safetensors"))
        self.assert_all_there()

    def test_wrong_keys_and_unfinished_folders_are_told(self):
        text = (self.folder / ".env").read_text()
        (self.folder / ".env").write_text(text.replace("limnersecret", "wrong"))
        message = self.upload(code=1)
        self.assertIn("403", message)
        self.assertNotIn("wrong", message)
        (self.folder / ".env").write_text(text)
        shutil.copy(ADAPTERS / "loha.safetensors", self.volume / "loras/new.safetensors")
        self.assertIn("loras/new.safetensors is not in limner-volume.json", self.upload(code=2))
        (self.volume / MANIFEST).unlink()
        self.assertIn("run `limner volume setup`", self.upload(code=2))


if __name__ == "__main__":
    if LIMNER is None or not re.search("aws-sigv4", subprocess.run(["curl", "--help", "all"], capture_output=True,
                                                                  text=True).stdout):
        print("skipped: want the program, and a curl that signs")
        sys.exit(77)
    unittest.main(verbosity=1)
