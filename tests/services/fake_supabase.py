"""Supabase Storage as far as SupabaseClient calls it, after the routes of github.com/supabase/storage.

One bucket, `limner`, and one key, `service-key`. As the real one does, it answers most failures with HTTP 400 and says
in the body which status it means, takes an upload as its body or as a form's file, and signs URLs with a JSON web token
that names the object and its end. supabase_client_test.py holds it against Supabase's own Python client.
"""

import base64
import email.parser
import email.policy
import email.utils
import hashlib
import hmac
import http.server
import json
import re
import threading
import time
import urllib.parse
import uuid

from fault_proxy import serve

KEY, BUCKET, SECRET = "service-key", "limner", b"token-secret"
VALID_NAME = re.compile(r"[\w/!\-.*'() &$@=;:+,?]+", re.ASCII)


class Refused(Exception):
    def __init__(self, status: int, error: str, message: str):
        self.status = 500 if status == 500 else 400
        self.body = {"statusCode": str(status), "error": error, "message": message}


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def make_token(claims: dict) -> str:
    text = encoded(b'{"alg":"HS256","typ":"JWT"}') + "." + encoded(json.dumps(claims).encode())
    return text + "." + encoded(hmac.new(SECRET, text.encode(), hashlib.sha256).digest())


def read_token(token: str) -> dict:
    text, _, signature = token.rpartition(".")
    if signature != encoded(hmac.new(SECRET, text.encode(), hashlib.sha256).digest()):
        raise Refused(400, "InvalidJWT", "signature verification failed")
    claims = json.loads(decoded(text.partition(".")[2]))
    if claims["exp"] <= time.time():
        raise Refused(400, "InvalidJWT", '"exp" claim timestamp check failed')
    return claims


def stamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(seconds))


class Object:
    def __init__(self, name: str, content: bytes, kind: str):
        self.id, self.name, self.content, self.kind, self.changed = str(uuid.uuid4()), name, content, kind, time.time()

    def row(self) -> dict:
        """As the listing and the answer to a removal have it."""
        at = stamp(self.changed)
        return {"id": self.id, "name": self.name, "created_at": at, "updated_at": at, "last_accessed_at": at,
                "metadata": {"size": len(self.content), "mimetype": self.kind, "httpStatusCode": 200,
                             "eTag": f'"{hashlib.md5(self.content).hexdigest()}"'}}


class Bucket:
    """What a call does; it returns what the answer's JSON says."""

    def __init__(self):
        self.objects: dict[str, Object] = {}

    def find(self, name: str) -> Object:
        if name not in self.objects:
            raise Refused(404, "not_found", "Object not found")
        return self.objects[name]

    def upload(self, name: str, body: bytes, headers, replace: bool) -> dict:
        if not VALID_NAME.fullmatch(name):
            raise Refused(400, "InvalidKey", f"Invalid key: {name}")
        if name in self.objects and not replace:
            raise Refused(409, "Duplicate", "The resource already exists")
        kind, content = headers["Content-Type"], body
        if kind.startswith("multipart/form-data"):
            kind, content = file_in_form(kind, body)
        self.objects[name] = Object(name, content, kind)
        return {"Key": f"{BUCKET}/{name}", "Id": self.objects[name].id}

    def sign(self, name: str, wanted: dict) -> dict:
        lifetime = int(wanted.get("expiresIn", 0))  # their own client sends it as text
        if lifetime < 1:
            raise Refused(400, "Error", "body/expiresIn must be >= 1")
        self.find(name)
        now = int(time.time())
        token = make_token({"url": f"{BUCKET}/{name}", "iat": now, "exp": now + lifetime})
        return {"signedURL": f"/object/sign/{urllib.parse.quote(f'{BUCKET}/{name}')}?token={token}"}

    def remove(self, wanted: dict) -> list:
        return [self.objects.pop(name).row() for name in wanted["prefixes"] if name in self.objects]

    def list_v2(self, wanted: dict) -> dict:
        after = decoded(wanted["cursor"]).decode() if wanted.get("cursor") else ""
        names = sorted(n for n in self.objects if n.startswith(wanted.get("prefix", "")) and n > after)
        page = names[: wanted.get("limit", 1000)]
        answer = {"hasNext": len(names) > len(page), "folders": [],
                  "objects": [self.objects[name].row() for name in page]}
        return answer | ({"nextCursor": encoded(page[-1].encode())} if answer["hasNext"] else {})

    def describe(self) -> dict:
        at = "2026-01-01T00:00:00.000Z"
        return {"id": BUCKET, "name": BUCKET, "owner": "", "public": False, "file_size_limit": None,
                "allowed_mime_types": None, "created_at": at, "updated_at": at}


def file_in_form(kind: str, body: bytes) -> tuple[str, bytes]:
    head = f"Content-Type: {kind}\r\n\r\n".encode()
    form = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    for part in form.iter_parts():
        if part.get_filename():
            return part.get_content_type(), part.get_payload(decode=True)
    raise Refused(400, "InvalidRequest", "No content provided")


class FakeSupabase:
    def __init__(self):
        bucket, lock = Bucket(), threading.Lock()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                try:
                    with lock:
                        route(self, bucket, body)
                except Refused as refused:
                    send(self, refused.status, json.dumps(refused.body).encode())

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

            def log_message(self, *_):
                pass

        self.port = serve(Handler)


def name_in(path: str) -> str:
    """The object's name in BUCKET/NAME."""
    bucket, _, name = urllib.parse.unquote(path).partition("/")
    if bucket != BUCKET:
        raise Refused(404, "Bucket not found", "Bucket not found")
    return name


def route(request, bucket: Bucket, body: bytes) -> None:
    url = urllib.parse.urlsplit(request.path)
    path, query = url.path.removeprefix("/storage/v1/"), dict(urllib.parse.parse_qsl(url.query))
    call = request.command
    if call == "GET" and path.startswith("object/sign/"):
        name = name_in(path.removeprefix("object/sign/"))
        if read_token(query.get("token", ""))["url"] != f"{BUCKET}/{name}":
            raise Refused(400, "InvalidSignature", "Invalid signature")
        send_object(request, bucket.find(name), query.get("download"))
        return
    if request.headers.get("Authorization") != f"Bearer {KEY}":
        raise Refused(403, "Unauthorized", "signature verification failed")
    for prefix, calls in ROUTES:
        if path.startswith(prefix) and call in calls:
            found = calls[call](bucket, name_in(path.removeprefix(prefix)), body, request.headers)
            if isinstance(found, Object):
                send_object(request, found, None)
            else:
                send(request, 200, json.dumps(found).encode())
            return
    raise Refused(404, "NotFound", f"Route {call}:{url.path} not found")


# The longest first; each call gets the bucket, the object's name, the body and the headers.
ROUTES = [
    ("bucket/", {"GET": lambda b, name, body, headers: b.describe()}),
    ("object/authenticated/", {"GET": lambda b, name, body, headers: b.find(name),
                               "HEAD": lambda b, name, body, headers: b.find(name)}),
    ("object/info/", {"GET": lambda b, name, body, headers: b.find(name).row()}),
    ("object/sign/", {"POST": lambda b, name, body, headers: b.sign(name, json.loads(body))}),
    ("object/list-v2/", {"POST": lambda b, name, body, headers: b.list_v2(json.loads(body))}),
    ("object/", {"GET": lambda b, name, body, headers: b.find(name),
                 "POST": lambda b, name, body, headers:
                     b.upload(name, body, headers, headers.get("x-upsert") == "true"),
                 "PUT": lambda b, name, body, headers: b.upload(name, body, headers, True),
                 "DELETE": lambda b, name, body, headers: b.remove(json.loads(body))}),
]


def send_object(request, found: Object, download_name: str | None) -> None:
    content, status = found.content, 200
    headers = {"Content-Type": found.kind, "Last-Modified": email.utils.formatdate(found.changed, usegmt=True)}
    if download_name is not None:
        headers["Content-Disposition"] = "attachment; filename*=UTF-8''" + urllib.parse.quote(download_name)
    wanted = request.headers.get("Range")
    if wanted:
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        if int(first) >= len(content):
            raise Refused(416, "S3Error", "InvalidRange")
        content, status = content[int(first): int(last) + 1 if last else None], 206
    send(request, status, content, headers)


def send(request, status: int, body: bytes, headers=None) -> None:
    request.send_response_only(status)
    for name, value in (headers or {"Content-Type": "application/json"}).items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)
