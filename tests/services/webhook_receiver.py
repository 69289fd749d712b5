"""A webhook receiver that checks what it gets as Standard Webhooks 1.0.0 says, and paths that behave badly.

/ok verifies and answers 204, or 401; /gone 410; /busy 429 with Retry-After: 7; /redirect 302 to /ok; /slow answers
after three seconds; /endless sends a body without end. GET /count answers how many requests /ok took.
"""

import base64
import hashlib
import hmac
import http.server
import time

from fault_proxy import serve

SECRET = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")


def verified(headers, body: bytes) -> bool:
    signed = b".".join([headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body])
    wanted = "v1," + base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()
    recent = abs(time.time() - int(headers["webhook-timestamp"])) < 300
    return recent and any(hmac.compare_digest(wanted, one) for one in headers["webhook-signature"].split())


class WebhookReceiver:
    def __init__(self):
        receiver = self
        self.taken = 0

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.answer(200, str(receiver.taken).encode())

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.path == "/gone":
                    self.answer(410)
                elif self.path == "/busy":
                    self.answer(429, headers={"Retry-After": "7"})
                elif self.path == "/redirect":
                    self.answer(302, headers={"Location": f"http://127.0.0.1:{receiver.port}/ok"})
                elif self.path == "/slow":
                    time.sleep(3)
                    self.answer(204)
                elif self.path == "/endless":
                    self.endless()
                else:
                    receiver.taken += 1
                    self.answer(204 if verified(self.headers, body) else 401)

            def answer(self, status: int, body: bytes = b"", headers=None):
                self.send_response_only(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                if status != 204:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def endless(self):
                self.send_response_only(200)
                self.end_headers()
                while True:
                    self.wfile.write(bytes(65536))

            def log_message(self, *_):
                pass

        self.port = serve(Handler)
