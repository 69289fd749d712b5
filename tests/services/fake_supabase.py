"""Supabase Storage as far as SupabaseStore calls it, after the routes of github.com/supabase/storage.

One bucket, `limner`, and one key, `service-key`. As the real one does, it answers most failures with HTTP 400 and says
in the body which status it means, and signs URLs with a JSON web token that names the object and its end.
"""

import base64
import email.utils
import hashlib
import hmac
import http.server
import json
import threading
import time
import urllib.parse

from fault_proxy import serve

KEY, BUCKET, SECRET = "service-key", "limner", b"token-secret"


class Refused(Exception):
    def __init__(self, status: int, error: str, message: str):
        self.body = {"statusCode": str(status), "error": error, "message": message}


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def make_token(claims: dict) -> str:
    text = encoded(b'{"alg":"HS256","typ":"JWT"}') + "." + encoded(json.dumps(claims).encode())
    return text + "." + encoded(hmac.new(SECRET, text.encode(), hashlib.sha256).digest())


def read_token(token: str) -> dict:
    text, _, signature = token.rpartition(".")
    if signature != encoded(hmac.new(SECRET, text.encode(), hashlib.sha256).digest()):
        raise Refused(400, "InvalidJWT", "signature verification failed")
    payload = text.partition(".")[2]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    if claims["exp"] <= time.time():
        raise Refused(400, "InvalidJWT", '"exp" claim timestamp check failed')
    return claims


class FakeSupabase:
    def __init__(self):
        objects: dict[str, tuple[bytes, str, float]] = {}
        lock = threading.Lock()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                url = urllib.parse.urlsplit(self.path)
                try:
                    with lock:
                        route(self, url.path.removeprefix("/storage/v1"), dict(urllib.parse.parse_qsl(url.query)), body)
                except Refused as refused:
                    send(self, 400, json.dumps(refused.body).encode())

            do_GET = do_HEAD = do_POST = do_DELETE = handle_any

            def log_message(self, *_):
                pass

        def authorize(request) -> None:
            if request.headers.get("Authorization") != f"Bearer {KEY}":
                raise Refused(403, "Unauthorized", "invalid signature")

        def name_in(path: str) -> str:
            bucket, _, name = urllib.parse.unquote(path).partition("/")
            if bucket != BUCKET:
                raise Refused(404, "Bucket not found", "Bucket not found")
            return name

        def found(name: str):
            if name not in objects:
                raise Refused(404, "not_found", "Object not found")
            return objects[name]

        def route(request, path: str, query: dict, body: bytes) -> None:
            signed = "token" in query and request.command == "GET" and path.startswith("/object/sign/")
            if signed:
                name = name_in(path.removeprefix("/object/sign/"))
                if read_token(query["token"])["url"] != f"{BUCKET}/{name}":
                    raise Refused(400, "InvalidSignature", "The signature is not of this object")
                send_object(request, found(name), query.get("download"))
                return
            authorize(request)
            for prefix, answer in routes[request.command]:
                if path.startswith(prefix):
                    answer(request, path.removeprefix(prefix), body)
                    return
            raise Refused(404, "not_found", f"no route {request.command} {path}")

        def get_bucket(request, path, _):
            name_in(path + "/")
            send(request, 200, json.dumps({
                "id": BUCKET, "name": BUCKET, "owner": "", "public": False, "file_size_limit": None,
                "allowed_mime_types": None, "created_at": "2026-01-01T00:00:00.000Z",
                "updated_at": "2026-01-01T00:00:00.000Z"}).encode())

        def download(request, path, _):
            send_object(request, found(name_in(path)), None)

        def upload(request, path, body):
            name = name_in(path)
            if name in objects and request.headers.get("x-upsert") != "true":
                raise Refused(409, "Duplicate", "The resource already exists")
            objects[name] = (body, request.headers["Content-Type"], time.time())
            send(request, 200, json.dumps({"Key": f"{BUCKET}/{name}", "Id": "1"}).encode())

        def sign(request, path, body):
            name = name_in(path)
            found(name)
            token = make_token({"url": f"{BUCKET}/{name}", "exp": time.time() + float(json.loads(body)["expiresIn"])})
            place = urllib.parse.quote(f"{BUCKET}/{name}")
            send(request, 200, json.dumps({"signedURL": f"/object/sign/{place}?token={token}"}).encode())

        def remove(request, path, body):
            name_in(path + "/")
            gone = [name for name in json.loads(body)["prefixes"] if objects.pop(name, None)]
            send(request, 200, json.dumps([{"name": name} for name in gone]).encode())

        def list_v2(request, path, body):
            name_in(path + "/")
            wanted = json.loads(body)
            after = wanted.get("cursor", "")
            names = sorted(n for n in objects if n.startswith(wanted.get("prefix", "")) and n > after)
            page = names[: wanted.get("limit", 1000)]
            answer = {"hasNext": len(names) > len(page), "folders": [], "objects": [describe(name) for name in page]}
            if answer["hasNext"]:
                answer["nextCursor"] = page[-1]
            send(request, 200, json.dumps(answer).encode())

        def describe(name: str) -> dict:
            content, kind, changed = objects[name]
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(changed))
            return {"id": "1", "key": name, "name": name, "created_at": stamp, "updated_at": stamp,
                    "last_accessed_at": stamp, "metadata": {"size": len(content), "mimetype": kind}}

        def send_object(request, stored, download_name):
            content, kind, changed = stored
            status, headers = 200, {"Content-Type": kind, "Last-Modified": email.utils.formatdate(changed, usegmt=True)}
            if download_name is not None:
                headers["Content-Disposition"] = "attachment; filename*=UTF-8''" + urllib.parse.quote(download_name)
            wanted = request.headers.get("Range")
            if wanted:
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                if int(first) >= len(content):
                    raise Refused(416, "InvalidRange", "The requested range is not satisfiable")
                content, status = content[int(first): int(last) + 1 if last else None], 206
            send(request, status, content, headers)

        def send(request, status: int, body: bytes, headers=None):
            request.send_response_only(status)
            for name, value in (headers or {"Content-Type": "application/json"}).items():
                request.send_header(name, value)
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            if request.command != "HEAD":
                request.wfile.write(body)

        routes = {
            "GET": [("/bucket/", get_bucket), ("/object/authenticated/", download), ("/object/", download)],
            "HEAD": [("/object/authenticated/", download)],
            "POST": [("/object/sign/", sign), ("/object/list-v2/", list_v2), ("/object/", upload)],
            "DELETE": [("/object/", remove)],
        }
        self.port = serve(Handler)
