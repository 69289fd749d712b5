"""The running service against its own description: every answer of a client's story fits docs/openapi.json, and
schemathesis finds nothing.

  answers_test.py PROGRAM           starts `PROGRAM serve` on a fresh data folder
  answers_test.py --url URL --key K asks a service that runs already

Wants jsonschema and schemathesis from PyPI, in .cache/api-venv; exits with 77 (skipped) when they cannot be had.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from python_packages import use_packages  # noqa: E402

# What the service that is started here allows.
LIMITS = {"largest_side": 512, "most_steps": 99, "most_images": 4, "most_adapters": 3, "most_pixels": 600_000}
PACKAGES = ["jsonschema==4.26.0", "rfc3339-validator==0.1.4", "schemathesis==4.32.5"]


class Description:
    """docs/openapi.json, and whether an answer fits it."""

    def __init__(self, document: dict):
        import jsonschema
        self.document = document
        self.format_checker = jsonschema.FormatChecker()
        self.validator = jsonschema.Draft202012Validator
        self.seen = set()
        self.paths = [(re.compile(self.pattern(path) + "$"), path) for path in document["paths"]]

    @staticmethod
    def pattern(path: str) -> str:
        tail = r".+" if path.startswith("/v1/artifacts/") else r"[^/]+"
        return re.sub(r"\\\{\w+\\\}", tail, re.escape(path))

    def resolve(self, node: dict) -> dict:
        while "$ref" in node:
            target = self.document
            for part in node["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            node = target
        return node

    def check(self, method: str, target: str, answer: "Answer") -> None:
        path = next(path for pattern, path in self.paths if pattern.match(target.split("?")[0]))
        operation = self.document["paths"][path][method.lower()]
        where = f"{method} {path} -> {answer.status}"
        responses = operation["responses"]
        response = self.resolve(responses.get(str(answer.status)) or responses["default"])
        assert str(answer.status) in responses or answer.status >= 400, f"{where}: not described"
        assert answer.header("X-Request-ID"), f"{where}: no X-Request-ID"
        self.seen.add((method, path))
        content = response.get("content", {})
        if answer.status in (204, 304) or not content:
            assert not answer.body, f"{where}: a body that is not described"
            return
        kind = (answer.header("Content-Type") or "").split(";")[0]
        assert kind in content or "*/*" in content, f"{where}: {kind} is not described"
        if kind.endswith("json"):
            schema = {"$ref": "#/x" , "x": content[kind]["schema"], "components": self.document["components"]}
            errors = list(self.validator(schema, format_checker=self.format_checker).iter_errors(answer.json()))
            assert not errors, f"{where}: {errors[0].json_path}: {errors[0].message}"


class Answer:
    def __init__(self, status: int, headers, body: bytes):
        self.status, self.headers, self.body = status, headers, body

    def header(self, name: str) -> str | None:
        return self.headers.get(name)

    def json(self):
        return json.loads(self.body)


class Client:
    def __init__(self, url: str, key: str, description: Description):
        self.url, self.key, self.description = url, key, description

    def ask(self, method: str, target: str, body=None, expect: int | tuple = 200, **headers) -> Answer:
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
            headers.setdefault("Content_Type", "application/json")
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        fields.setdefault("Authorization", f"Bearer {self.key}")
        fields = {name: value for name, value in fields.items() if value}
        request = urllib.request.Request(self.url + target, data=body, method=method, headers=fields)
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                answer = Answer(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            answer = Answer(error.code, error.headers, error.read())
        wanted = expect if isinstance(expect, tuple) else (expect,)
        assert answer.status in wanted, f"{method} {target}: {answer.status}, want {expect}: {answer.body[:500]!r}"
        self.description.check("GET" if method == "HEAD" else method, target, answer)
        return answer

    def local(self, url: str) -> str:
        assert url.startswith(self.url), url
        return url.removeprefix(self.url)

    def events(self, target: str) -> list[tuple[int, str, dict]]:
        text = self.ask("GET", target).body.decode()
        events = []
        for block in text.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
            if "event" in fields:
                events.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
        return events


def wait_until_ended(client: Client, target: str) -> dict:
    for _ in range(600):
        shown = client.ask("GET", target).json()
        if shown["status"] not in ("queued", "running"):
            return shown
        time.sleep(0.1)
    raise AssertionError("the generation does not end")


def tell_generations(client: Client) -> None:
    body = {"prompt": "a red circle", "steps": 2, "num_images": 2, "output": {"thumbnails": [32]}, "metadata": [1]}
    key = str(uuid.uuid4())
    first = client.ask("POST", "/v1/generations", body, 202, Idempotency_Key=key)
    again = client.ask("POST", "/v1/generations", body, 202, Idempotency_Key=key)
    assert first.body == again.body
    client.ask("POST", "/v1/generations", {"prompt": "else"}, 422, Idempotency_Key=key)
    self = "/v1/generations/" + first.json()["request_id"]
    events = client.events(self + "/events?after=0")
    assert events[-1][1] == "completed", events
    assert [event[0] for event in events] == sorted({event[0] for event in events})
    client.ask("GET", f"{self}/events", expect=204, Last_Event_ID=str(events[-1][0]))
    shown = client.ask("GET", self)
    assert len(shown.json()["images"]) == 2
    client.ask("GET", self, expect=304, If_None_Match=shown.header("ETag"))
    client.ask("GET", "/v1/generations?limit=1&status=completed")
    client.ask("POST", self + "/retry", expect=409)
    url = client.local(shown.json()["images"][0]["url"])
    whole = client.ask("GET", url, Authorization="")
    part = client.ask("GET", url, expect=206, Range="bytes=1-3")
    assert part.body == whole.body[1:4] and whole.body.startswith(b"\x89PNG")
    client.ask("GET", url, expect=416, Range="bytes=999999999-")
    client.ask("GET", url, expect=304, If_None_Match=whole.header("ETag"))
    client.ask("GET", url[:-1] + ("A" if url[-1] != "A" else "B"), expect=403)
    client.ask("DELETE", self, expect=204)
    client.ask("GET", self, expect=404)
    client.ask("GET", url, expect=404)


def tell_waiting(client: Client) -> None:
    picture = client.ask("POST", "/v1/generations", {"prompt": "a", "steps": 1}, Accept="image/jpeg")
    assert picture.body.startswith(b"\xff\xd8")
    result = client.ask("POST", "/v1/generations", {"prompt": "a", "steps": 1}, Prefer="wait=60")
    assert result.json()["status"] == "completed"
    client.ask("POST", "/v1/generations", {"prompt": "a"}, 406, Accept="text/html")
    slow = client.ask("POST", "/v1/generations", {"prompt": "a", "steps": 90, "num_images": 4}, 202).json()
    self = "/v1/generations/" + slow["request_id"]
    client.ask("POST", self + "/cancel")
    ended = wait_until_ended(client, self)
    assert ended["status"] == "canceled", ended
    client.ask("POST", self + "/retry", expect=202)
    client.ask("POST", self + "/cancel")
    wait_until_ended(client, self)


def tell_rest(client: Client) -> None:
    for target in ("/v1/models", "/v1/samplers", "/v1/loras", "/v1/templates", "/v1/queue", "/v1/usage",
                   "/v1/usage?by=day,key,model,tier", "/v1/webhooks/deliveries", "/v1/workers", "/livez", "/readyz",
                   "/ping", "/metrics", "/openapi.json"):
        client.ask("GET", target)
    client.ask("POST", "/v1/templates/reload", expect=(200, 404))
    client.ask("POST", "/v1/workers/reinitialize")
    client.ask("POST", "/v1/queue/pause")
    waits = client.ask("POST", "/v1/generations", {"prompt": "a", "steps": 1}, 202, Prefer="wait=1").json()
    client.ask("POST", "/v1/queue/resume")
    assert wait_until_ended(client, "/v1/generations/" + waits["request_id"])["status"] == "completed"
    picture = client.ask("POST", "/v1/generations", {"prompt": "a", "steps": 1}, Accept="image/png").body
    stored = client.ask("POST", "/v1/uploads", picture, 201).json()
    assert client.ask("GET", client.local(stored["url"])).body == picture
    client.ask("POST", "/v1/uploads", b"GIF89a", 415)
    tell_forms(client, picture, stored["id"])
    client.ask("DELETE", "/v1/accounts/nobody/data")
    client.ask("POST", "/v1/webhooks/secret", expect=201)
    client.ask("PUT", "/v1/webhooks/endpoint", {"url": "https://hooks.example.com/"})
    client.ask("GET", "/v1/webhooks/endpoint")
    client.ask("DELETE", "/v1/webhooks/endpoint", expect=204)
    client.ask("POST", "/v1/webhooks/deliveries/msg_none/resend", expect=404)
    wrong = client.ask("POST", "/v1/generations", {"promt": "a", "width": 3, "image": "x"}, 422).json()
    assert {field["field"] for field in wrong["errors"]} == {"prompt", "promt", "width", "image"}, wrong
    client.ask("POST", "/v1/generations", b"{", 400)
    client.ask("POST", "/v1/generations", {"prompt": "a"}, 401, Authorization="Bearer nonsense")
    client.ask("GET", "/v1/models", expect=401, Authorization="")


def tell_forms(client: Client, picture: bytes, stored: str) -> None:
    """Uploads as forms, by curl and by requests: what their users' clients send."""
    import requests
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "a \"red\" circle;é.png"
        file.write_bytes(picture)
        command = ["curl", "-sS", "-H", f"Authorization: Bearer {client.key}", client.url + "/v1/uploads"]
        for form in (["-F", "file=@-;filename=a.png"], ["-F", "image=@-;type=image/jpeg"], ["-F", "file=<-"],
                     ["-H", "Expect: 100-continue", "-F", "file=@-"]):
            said = subprocess.run(command + form, input=picture, capture_output=True, check=True).stdout
            assert json.loads(said)["id"] == stored, said
        two = subprocess.run(command + ["-F", "file=@-", "-F", "name=x"], input=picture, capture_output=True, check=True)
        assert json.loads(two.stdout)["code"] == "invalid_form", two.stdout
        for kept in ({"file": file.open("rb")}, {"image": ("b.png", picture, "image/png")}):
            said = requests.post(client.url + "/v1/uploads", files=kept, timeout=60,
                                 headers={"Authorization": f"Bearer {client.key}"})
            assert said.status_code == 201 and said.json()["id"] == stored, said.text
    boundary = {"Content_Type": "multipart/form-data; boundary=b"}
    client.ask("POST", "/v1/uploads", b"--b\r\nContent-Disposition: form-data; name=x\r\n\r\ncut", 400, **boundary)
    client.ask("POST", "/v1/uploads", b"--b--", 400, **boundary)
    client.ask("POST", "/v1/uploads", b"", 400, **boundary)


def tell_limits(client: Client) -> None:
    for model in client.ask("GET", "/v1/models").json()["data"]:
        for name in ("largest_side", "most_steps", "most_images"):
            assert model["limits"][name] <= LIMITS[name], model
    moon = [{"name": "moon"}]
    for body, field in (({"steps": 100}, "steps"), ({"width": 520}, "width"), ({"num_images": 5}, "num_images"),
                        ({"width": 512, "height": 512, "num_images": 3}, "num_images"), ({"loras": moon * 4}, "loras"),
                        ({"prompt": "<lora:moon:1><lora:moon:1>", "loras": moon * 2}, "prompt")):
        wrong = client.ask("POST", "/v1/generations", {"prompt": "a", **body}, 422).json()
        assert [one["field"] for one in wrong["errors"]] == [field], wrong


def fuzz(url: str, key: str) -> int:
    # unsupported_method wants 405 for methods that no RFC has (router_test.cpp looks at 405 and 501). Nothing may pause
    # the queue for the others, and the stream of a job that waits behind many does not end in time.
    return subprocess.run(
        [pathlib.Path(sys.prefix) / "bin/schemathesis", "--config-file",
         pathlib.Path(__file__).resolve().parent / "schemathesis.toml", "run",
         url + "/openapi.json", "-H", f"Authorization: Bearer {key}", "--checks", "all", "--exclude-checks",
         "unsupported_method", "--exclude-path", "/v1/queue/pause", "--exclude-path", "/v1/generations/{id}/events",
         "--no-color"], cwd=sys.prefix).returncode


def tell(url: str, key: str, limits: bool) -> int:
    with urllib.request.urlopen(url + "/openapi.json") as response:
        description = Description(json.load(response))
    client = Client(url, key, description)
    tell_generations(client)
    tell_waiting(client)
    tell_rest(client)
    if limits:
        tell_limits(client)
    paths = description.document["paths"]
    described = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert described == description.seen, f"not asked: {described - description.seen}"
    print(f"{len(described)} operations answer as they are described")
    return fuzz(url, key)


def serve_and_tell(program: str) -> int:
    with tempfile.TemporaryDirectory(prefix="limner-api-") as folder:
        environment = {**os.environ, "LIMNER_RATE_LIMIT": "off", "OMP_NUM_THREADS": "1"}
        environment |= {f"LIMNER_LIMITS_{name.upper()}": str(value) for name, value in LIMITS.items()}
        log = open(pathlib.Path(folder) / "log", "w+")
        server = subprocess.Popen([program, "serve", "--data-dir", folder + "/data", "--port", "0", "--json"],
                                  stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        try:
            said = json.loads(server.stdout.readline())
            for _ in range(300):
                try:
                    urllib.request.urlopen(said["url"] + "/readyz")
                    break
                except urllib.error.URLError:
                    time.sleep(0.2)
            result = tell(said["url"], said["key"], limits=True)
            assert server.poll() is None, "the service has ended"
            return result
        except Exception:
            log.seek(0)
            print(log.read()[-3000:], file=sys.stderr)
            raise
        finally:
            server.terminate()
            server.wait(60)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("program", nargs="?")
    parser.add_argument("--url")
    parser.add_argument("--key")
    chosen = parser.parse_args()
    use_packages("api-venv", PACKAGES)
    return tell(chosen.url, chosen.key, limits=False) if chosen.url else serve_and_tell(chosen.program)


if __name__ == "__main__":
    sys.exit(main())
