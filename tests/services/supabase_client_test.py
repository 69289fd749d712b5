"""Holds fake_supabase.py against Supabase's own Python client, so that what passes with the fake is the published API.

Wants storage3 from PyPI; exits with 77 (skipped) where it cannot be had.
"""

import pathlib
import sys
import unittest
import urllib.error
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from python_packages import use_packages

use_packages("supabase-venv", ["storage3==2.34.1"])

from storage3 import SyncStorageClient
from storage3.exceptions import StorageApiError

from fake_supabase import BUCKET, KEY, FakeSupabase

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 50


def fetch(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


class OwnClient(unittest.TestCase):
    def setUp(self):
        self.port = FakeSupabase().port
        self.storage = self.client(KEY)
        self.bucket = self.storage.from_(BUCKET)

    def client(self, key: str) -> SyncStorageClient:
        return SyncStorageClient(f"http://127.0.0.1:{self.port}/storage/v1/",
                                 {"Authorization": f"Bearer {key}", "apikey": key})

    def refused(self, status: int, call, *arguments) -> StorageApiError:
        with self.assertRaises(StorageApiError) as raised:
            call(*arguments)
        self.assertEqual(int(raised.exception.status), status)
        return raised.exception

    def test_buckets_are_described_and_missing_ones_told(self):
        bucket = self.storage.get_bucket(BUCKET)
        self.assertEqual((bucket.id, bucket.name, bucket.public), (BUCKET, BUCKET, False))
        self.assertEqual(self.refused(404, self.storage.get_bucket, "none").message, "Bucket not found")
        self.refused(403, self.client("another").get_bucket, BUCKET)

    def test_what_is_uploaded_is_downloaded(self):
        uploaded = self.bucket.upload("a b/1.png", PNG, {"content-type": "image/png"})
        self.assertEqual(uploaded.full_path, f"{BUCKET}/a b/1.png")
        self.assertEqual(self.bucket.download("a b/1.png"), PNG)
        self.assertTrue(self.bucket.exists("a b/1.png"))
        self.assertEqual(self.refused(404, self.bucket.download, "none.png").message, "Object not found")

    def test_a_name_is_taken_once_unless_it_may_be_replaced(self):
        self.bucket.upload("1.png", PNG)
        self.refused(409, self.bucket.upload, "1.png", b"other")
        self.bucket.upload("1.png", b"other", {"upsert": "true"})
        self.assertEqual(self.bucket.download("1.png"), b"other")
        self.bucket.update("1.png", PNG)
        self.assertEqual(self.bucket.download("1.png"), PNG)
        self.refused(400, self.bucket.upload, "caf\u00e9.png", PNG)

    def test_signed_urls_open_their_object_alone(self):
        self.bucket.upload("u/1.png", PNG, {"content-type": "image/png"})
        url = self.bucket.create_signed_url("u/1.png", 60)["signedURL"]
        self.assertEqual(fetch(url), (200, PNG))
        for changed in (url.replace("u/1.png", "u/2.png"), url[:-3], url.partition("?")[0]):
            self.assertEqual(fetch(changed)[0], 400, changed)
        self.refused(404, self.bucket.create_signed_url, "u/2.png", 60)
        self.refused(400, self.bucket.create_signed_url, "u/1.png", 0)

    def test_listings_come_in_pages(self):
        for i in range(5):
            self.bucket.upload(f"p/{i}.png", PNG)
        first = self.bucket.list_v2({"prefix": "p/", "limit": 3, "with_delimiter": False})
        self.assertEqual([o.name for o in first.objects], ["p/0.png", "p/1.png", "p/2.png"])
        self.assertEqual(first.objects[0].metadata["size"], len(PNG))
        self.assertTrue(first.hasNext)
        rest = self.bucket.list_v2({"prefix": "p/", "limit": 3, "cursor": first.nextCursor})
        self.assertEqual([o.name for o in rest.objects], ["p/3.png", "p/4.png"])
        self.assertFalse(rest.hasNext)

    def test_what_is_removed_is_told_and_gone(self):
        self.bucket.upload("1.png", PNG)
        self.assertEqual([o["name"] for o in self.bucket.remove(["1.png", "none.png"])], ["1.png"])
        self.assertFalse(self.bucket.exists("1.png"))


if __name__ == "__main__":
    unittest.main(warnings="ignore")
