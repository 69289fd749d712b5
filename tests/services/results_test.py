"""`limner runpod` and `limner serve` with their pictures in a real S3 server and a Supabase-like one, well and ill.

  results_test.py PROGRAM

Exits with 77 (skipped) where the S3 server cannot be fetched.
"""

import hashlib
import json
import pathlib
import struct
import sys
import tempfile
import unittest
import urllib.error
import urllib.request

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path += [str(TESTS / "runpod"), str(TESTS / "fault")]

from control_plane import ControlPlane
from endurance import PNG, WorkerProcess
from fake_supabase import FakeSupabase
from fault_proxy import STORM, FaultProxy
from run import HOST, s3_server
from service_harness import SMALLEST, Service
from workers import LimnerWorker

PROGRAM = sys.argv.pop() if len(sys.argv) > 1 else ""
HEADSHOT = {"prompt": "a red circle", "user_id": "ada-1", "steps": 1, "width": 64, "height": 64}
# Supabase has no checksums for uploads; there TLS guards what comes by.
WITHOUT_CHANGES = [kind for kind in STORM if kind not in ("corrupt", "damaged")]


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read()


def size_of(png: bytes) -> tuple[int, int]:
    assert png.startswith(PNG) and png.endswith(b"IEND\xaeB`\x82"), "not a whole PNG"
    return struct.unpack(">II", png[16:24])


class Buckets(unittest.TestCase):
    def setUp(self):
        port, self.bucket = self.enterContext(s3_server())
        self.s3 = FaultProxy(("127.0.0.1", port))
        self.supabase = FaultProxy(("127.0.0.1", FakeSupabase().port))
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.in_s3 = {"BUCKET_ENDPOINT_URL": f"http://{HOST}:{self.s3.port}/limner", "BUCKET_ACCESS_KEY_ID": "limner",
                      "BUCKET_SECRET_ACCESS_KEY": "limnersecret"}

    def stored(self) -> list[str]:
        return sorted(str(file.relative_to(self.bucket)) for file in self.bucket.rglob("*.*"))


class Worker(Buckets):
    def setUp(self):
        super().setUp()
        self.plane = self.enterContext(ControlPlane())
        self.in_supabase = {"SUPABASE_URL": self.supabase.url, "SUPABASE_SERVICE_ROLE_KEY": "service-key",
                            "SUPABASE_BUCKET": "limner"}

    def start(self, **variables: str) -> WorkerProcess:
        worker = WorkerProcess(LimnerWorker(PROGRAM), self.plane, "w", self.folder, 1, **variables)
        self.addCleanup(worker.end)
        return worker

    def answers(self, *inputs: dict, seconds: float = 120) -> list:
        jobs = [self.plane.jobs[self.plane.submit({"input": given})] for given in inputs]
        self.assertTrue(self.plane.wait(lambda: all(job.results for job in jobs), seconds), self.log())
        for job in jobs:
            self.assertEqual(len(job.results), 1)
        return jobs

    def log(self) -> str:
        return (self.folder / "worker.log").read_text()[-2000:]

    def draw_headshots(self, **where: str) -> list[str]:
        worker = self.start(LIMNER_RUNPOD_KIND="headshot", **where)
        worker.ready()
        jobs = self.answers(*[HEADSHOT | {"seed": i} for i in range(10)])
        self.assertEqual([job.error for job in jobs if job.error], [], self.log())
        self.assertEqual(worker.end(), 0, self.log())
        return [job.output["image_url"] for job in jobs]

    def test_an_answer_over_the_limit_becomes_urls_that_open_its_pictures(self):
        self.start(**self.in_s3).ready()
        job, = self.answers({"prompt": "a red circle", "steps": 1, "width": 1024, "height": 1024, "num_images": 16,
                             "guidance_scale": 100, "seed": 7}, seconds=450)
        output = job.output
        self.assertEqual(output["images_are"], "urls")
        pictures = [fetch(url) for url in output["images"]]
        self.assertEqual({size_of(png) for png in pictures}, {(1024, 1024)})
        for png, seed in zip(pictures, output["seeds"], strict=True):
            self.assertIn(f"Seed: {seed}".encode(), png)
        self.assertEqual(self.stored(), sorted(f"{job.id}/{i}.png" for i in range(16)))
        self.assertLess(len(json.dumps(output)), 100_000)
        with self.assertRaises(urllib.error.HTTPError) as refused:
            fetch(output["images"][0].replace("/0.png", "/1.png"))
        self.assertEqual(refused.exception.code, 403)

    def test_headshots_arrive_once_and_whole_in_s3_through_a_storm(self):
        self.s3.expect([], share=0.3, seed=3)
        urls = self.draw_headshots(**self.in_s3)
        self.assertGreater(self.s3.requests, 11)  # the look at the bucket and ten uploads
        self.s3.expect([])
        self.assertEqual(len({fetch(url) for url in urls}), 10)
        self.assertEqual({size_of(fetch(url)) for url in urls}, {(64, 64)})
        self.assertEqual(len(self.stored()), 10)

    def test_headshots_arrive_once_and_whole_in_supabase_through_a_storm(self):
        self.supabase.expect([], share=0.3, seed=3, kinds=WITHOUT_CHANGES)
        urls = self.draw_headshots(**self.in_supabase)
        self.assertGreater(self.supabase.requests, 22)
        self.supabase.expect([])
        self.assertEqual({size_of(fetch(url)) for url in urls}, {(64, 64)})
        self.assertEqual(len({fetch(url) for url in urls}), 10)

    def test_a_storage_that_fails_is_a_failed_job_and_the_next_one_is_well(self):
        self.start(LIMNER_RUNPOD_KIND="headshot", **self.in_s3).ready()
        self.s3.expect(["500"] * 4)
        failed, = self.answers(HEADSHOT)
        well, = self.answers(HEADSHOT)
        error = json.loads(failed.error)
        self.assertTrue(error["retryable"])
        self.assertIn("500", error["error_message"])
        self.assertEqual(size_of(fetch(well.output["image_url"])), (64, 64))

    def test_a_bucket_that_is_not_there_is_told_before_the_first_job(self):
        missing = self.in_s3 | {"BUCKET_ENDPOINT_URL": f"http://{HOST}:{self.s3.port}/none"}
        worker = self.start(LIMNER_RUNPOD_KIND="headshot", **missing)
        self.assertEqual(worker.process.wait(60), 1)
        self.assertIn("NoSuchBucket", self.log())
        self.assertTrue(self.plane.unhealthy)


class Serving(Buckets):
    def service(self, **variables: str) -> Service:
        service = Service(PROGRAM, self.folder / "data", **variables)
        self.addCleanup(service.stop)
        return service

    def draw(self, **variables: str) -> None:
        """Some pictures: each is where its URL says, and is the one that was named."""
        client = self.service(**variables).start().client()
        jobs = [client.submit(SMALLEST | {"seed": i}, str(i)).json["request_id"] for i in range(5)]
        shown = [client.wait(job) for job in jobs]
        self.s3.expect([])
        for job in shown:
            self.assertEqual(job["status"], "completed", job)
            for image in job["images"]:
                self.assertEqual(hashlib.sha256(fetch(image["url"])).hexdigest(), image["sha256"])

    def test_pictures_lie_in_s3_through_a_storm(self):
        self.s3.expect([], share=0.2, seed=5)
        self.draw(LIMNER_DELIVERY_STORE="s3", LIMNER_DELIVERY_PREFIX="pictures/", **self.in_s3)
        self.assertTrue(all(name.startswith("pictures/hot/") for name in self.stored()), self.stored())
        self.assertEqual(len(self.stored()), 5)

    def test_pictures_lie_in_supabase(self):
        self.draw(LIMNER_DELIVERY_STORE="supabase", LIMNER_DELIVERY_SUPABASE_URL=self.supabase.url,
                  LIMNER_DELIVERY_SUPABASE_KEY="service-key", LIMNER_DELIVERY_BUCKET="limner")

    def test_a_bucket_that_cannot_be_opened_ends_the_start(self):
        service = self.service(LIMNER_DELIVERY_STORE="s3", **self.in_s3 | {"BUCKET_SECRET_ACCESS_KEY": "another"})
        service.launch()
        self.assertEqual(service.process.wait(60), 1)
        self.assertIn("SignatureDoesNotMatch", service.log_tail())


if __name__ == "__main__":
    unittest.main(warnings="ignore")
