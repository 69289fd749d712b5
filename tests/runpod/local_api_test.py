"""`limner runpod` without a platform: the endpoint at home, asked by RunPod's own client, and the load-balancing form.

  local_api_test.py PROGRAM [NAME...]

Wants runpod from PyPI, in .cache/runpod-venv; exits with 77 (skipped) when it cannot be had.
"""

import base64
import http.client
import http.server
import json
import os
import pathlib
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from python_packages import use_packages  # noqa: E402

from workers import PNG, ROOT, LimnerWorker  # noqa: E402

PROGRAM = ""
INPUT = LimnerWorker("").input
FINAL = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")


class Started:
    """`limner runpod ARGUMENTS` with a data folder of its own; `url` is where it says that it is."""

    def __init__(self, *arguments: str, **variables: str):
        self.folder = tempfile.TemporaryDirectory()
        self.log = pathlib.Path(self.folder.name) / "log"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RUNPOD_")}
        environment |= {"LIMNER_MODELS": str(ROOT / "models"), "LIMNER_THREADS": "1", "OMP_NUM_THREADS": "1",
                        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true", **variables}
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([PROGRAM, "runpod", "--data-dir", "data", "--json", *arguments],
                                            cwd=self.folder.name, env=environment, stdout=subprocess.PIPE, stderr=log,
                                            stdin=subprocess.DEVNULL)
        said = self.process.stdout.readline()
        assert said, f"it said nothing: {self.text()}"
        self.url = json.loads(said)["url"].replace("0.0.0.0", "127.0.0.1")

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def terminate(self, seconds: float = 40) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.folder.cleanup()


def ask(url: str, body=None, method: str | None = None, seconds: float = 100) -> tuple[int, dict, dict]:
    """Status, body and header fields."""
    data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method or ("GET" if data is None else "POST"))
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            status, text, fields = answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        status, text, fields = error.code, error.read(), dict(error.headers)
    return status, json.loads(text) if text else {}, fields


def until(condition, seconds: float = 60, what: str = "it does not happen"):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"{what} within {seconds} s"
        time.sleep(0.05)
    return found


def check_pictures(output: dict, count: int = 1) -> None:
    assert len(output["images"]) == len(output["seeds"]) == count, output.keys()
    assert all(base64.b64decode(image).startswith(PNG) for image in output["images"])


class Hooks:
    """A client's webhook: `bodies` in the order in which they came; the first `failures` are answered with 500."""

    def __init__(self, failures: int = 0):
        self.bodies: queue.Queue = queue.Queue()
        hooks = self
        hooks.failures = failures

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                hooks.failures -= 1
                self.send_response(500 if hooks.failures >= 0 else 204)
                self.end_headers()
                hooks.bodies.put((time.monotonic(), body))

            def log_message(self, *_):
                pass

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


# -- the endpoint at home, by RunPod's client; `endpoint` is runpod.Endpoint, two jobs are drawn at a time --


def run_and_output(endpoint, url: str) -> None:
    job = endpoint.run(INPUT("plain"))
    check_pictures(job.output(timeout=60))
    assert job.status() == "COMPLETED"
    status, shown, _ = ask(f"{url}/status/{job.job_id}")
    assert status == 200 and shown["delayTime"] >= 0 and shown["executionTime"] > 0, shown
    assert ask(f"{url}/v2/any/status/{job.job_id}", b"", "POST")[1]["status"] == "COMPLETED"


def run_sync(endpoint, url: str) -> None:
    check_pictures(endpoint.run_sync({"input": INPUT("plain")}, timeout=60))
    status, shown, _ = ask(f"{url}/runsync", {"input": INPUT("error")})
    assert status == 200 and shown["status"] == "FAILED" and "steps" in shown["error"], shown


def run_sync_that_does_not_wait(endpoint, url: str) -> None:
    status, shown, _ = ask(f"{url}/runsync?wait=1000", {"input": INPUT("very slow")})
    assert status == 200 and shown["status"] in ("IN_QUEUE", "IN_PROGRESS"), shown
    assert ask(f"{url}/cancel/{shown['id']}", b"")[1]["status"] == "CANCELLED"


def stream(endpoint, url: str) -> None:
    job = endpoint.run({"input": INPUT("stream")})
    parts = list(job.stream())
    assert sorted(part["index"] for part in parts) == [0, 1, 2], parts
    assert all(base64.b64decode(part["image"]).startswith(PNG) for part in parts)


def progress(endpoint, url: str) -> None:
    job = endpoint.run({"input": INPUT("very slow") | {"progress": True}})
    shown = until(lambda: ask(f"{url}/status/{job.job_id}")[1].get("output"), what="no progress")
    assert {"step", "steps", "value"} <= shown.keys(), shown
    job.cancel()


def cancel(endpoint, url: str) -> None:
    jobs = [endpoint.run({"input": INPUT("very slow")}) for _ in range(2)]
    until(lambda: all(job.status() == "IN_PROGRESS" for job in jobs), what="the jobs are not taken")
    began = time.monotonic()
    for job in jobs:
        assert job.cancel()["status"] == "CANCELLED"
    assert job.status() == "CANCELLED"
    check_pictures(endpoint.run_sync({"input": INPUT("plain")}, timeout=60))
    assert time.monotonic() - began < 20, "the worker went on with what was cancelled"


def purge(endpoint, url: str) -> None:
    jobs = [endpoint.run({"input": INPUT("very slow")}) for _ in range(2)]
    until(lambda: all(job.status() == "IN_PROGRESS" for job in jobs), what="the jobs are not taken")
    waiting = [endpoint.run({"input": INPUT("plain")}) for _ in range(3)]
    health = endpoint.health()
    assert health["jobs"]["inProgress"] == 2 and health["jobs"]["inQueue"] == 3, health
    assert health["workers"]["running"] == 1 and health["workers"]["initializing"] == 0, health
    assert endpoint.purge_queue() == {"removed": 3, "status": "completed"}
    assert all(job.status() == "CANCELLED" for job in waiting)
    assert all(job.status() == "IN_PROGRESS" for job in jobs)
    for job in jobs:
        job.cancel()


def retry(endpoint, url: str) -> None:
    job = endpoint.run({"input": INPUT("error")})
    until(lambda: job._fetch_job()["status"] == "FAILED")
    status, answer, _ = ask(f"{url}/retry/{job.job_id}", b"")
    assert (status, answer) == (200, {"id": job.job_id, "status": "IN_QUEUE"}), answer
    until(lambda: ask(f"{url}/status/{job.job_id}")[1]["status"] == "FAILED")
    assert endpoint.health()["jobs"]["retried"] >= 1
    done = endpoint.run(INPUT("plain"))
    done.output(timeout=60)
    assert ask(f"{url}/retry/{done.job_id}", b"")[0] == 400


def execution_timeout(endpoint, url: str) -> None:
    job = endpoint.run({"input": INPUT("very slow"), "policy": {"executionTimeout": 5000}})
    until(lambda: job._fetch_job()["status"] == "TIMED_OUT", 30)
    assert "executionTimeout" in ask(f"{url}/status/{job.job_id}")[1]["error"]
    check_pictures(endpoint.run_sync({"input": INPUT("plain")}, timeout=60))


def webhook(endpoint, url: str) -> None:
    hooks = Hooks(failures=1)
    try:
        job = endpoint.run({"input": INPUT("plain"), "webhook": hooks.url})
        first, told = hooks.bodies.get(timeout=60)
        again, same = hooks.bodies.get(timeout=20)
        assert told == same and told["id"] == job.job_id and told["status"] == "COMPLETED", told
        check_pictures(told["output"])
        assert 9.5 < again - first < 15, again - first
    finally:
        hooks.close()


def errors(endpoint, url: str) -> None:
    for path in ("status/nobody", "stream/nobody"):
        assert ask(f"{url}/{path}")[0] == 404
    for path in ("cancel/nobody", "retry/nobody", "v2/any/cancel/nobody"):
        assert ask(f"{url}/{path}", b"")[0] == 404
    wrong = {
        "input": {}, "policy.ttl": {"input": {}, "policy": {"ttl": 1}}, "webhook": {"input": {}, "webhook": "ftp://a"},
        "webhok": {"input": {}, "webhok": "https://a.example"},
    }
    for name, body in wrong.items():
        status, answer, _ = ask(f"{url}/run", body)
        assert status == 400 and name in answer["error"], answer
    status, answer, _ = ask(f"{url}/run", b"{no json")
    assert status == 400 and "JSON" in answer["error"], answer
    status, answer, _ = ask(f"{url}/runsync?wait=5", {"input": {}})
    assert status == 400 and "wait" in answer["error"], answer
    assert ask(f"{url}/nothing")[0] == 404
    status, answer, fields = ask(f"{url}/run")
    assert status == 405 and "POST" in fields["Allow"], answer
    big = json.dumps({"input": {"prompt": "x" * (10 << 20)}}).encode()
    assert ask(f"{url}/run", big)[0] == 413
    status, shown, _ = ask(f"{url}/runsync", big)
    assert status == 200 and shown["status"] == "FAILED", (status, shown)  # the worker's own limit names it
    assert ask(f"{url}/runsync", b" " * (20 << 20) + b"{}")[0] == 413
    assert ask(f"{url}/v2/local/job-take/local")[0] == 401


def front_page(endpoint, url: str) -> None:
    status, page, _ = ask(f"{url}/")
    assert status == 200 and "POST /runsync?wait=MS" in page["calls"] and url in page["try"], page


HOME = [front_page, run_and_output, run_sync, run_sync_that_does_not_wait, stream, progress, cancel, purge, retry,
        execution_timeout, webhook, errors]


# -- starting and ending --


def a_signal_finishes_what_runs() -> None:
    hooks = Hooks()
    try:
        with Started("--serve-api", "--api-host", "127.0.0.1", "--api-port", "0") as worker:
            job = ask(f"{worker.url}/run", {"input": INPUT("slow"), "webhook": hooks.url})[1]["id"]
            until(lambda: ask(f"{worker.url}/status/{job}")[1]["status"] == "IN_PROGRESS")
            assert worker.terminate() == 0, worker.text()
            _, told = hooks.bodies.get(timeout=5)
            assert told["status"] == "COMPLETED", told
    finally:
        hooks.close()


def wrong_options_are_refused() -> None:
    for options in (["--api-port", "1"], ["--serve-api", "--load-balancing"], ["--serve-api", "--test-input", "{}"],
                    ["--serve-api", "--api-concurrency", "0"]):
        made = subprocess.run([PROGRAM, "runpod", *options], capture_output=True, text=True)
        assert made.returncode == 2 and made.stderr.strip(), (options, made)


# -- the load-balancing form --


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def health(url: str, path: str = "/ping") -> int:
    try:
        return ask(url + path, seconds=5)[0]
    except OSError:
        return 0


class Asked(threading.Thread):
    """A request on a connection of its own, which can be cut."""

    def __init__(self, url: str, path: str, body: dict):
        super().__init__(daemon=True)
        self.connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=100)
        self.path, self.body, self.status, self.answer = path, json.dumps(body), 0, {}
        self.start()

    def run(self) -> None:
        try:
            self.connection.request("POST", self.path, self.body)
            response = self.connection.getresponse()
            self.status, self.fields = response.status, dict(response.headers)
            self.answer = json.loads(response.read())
        except OSError:
            self.status = -1

    def cut(self) -> None:
        self.connection.sock.shutdown(socket.SHUT_RDWR)
        self.join(10)


def balanced(**variables: str) -> Started:
    return Started("--load-balancing", LIMNER_WORKERS="1", **({"PORT": str(free_port())} | variables))


def loads_and_then_draws() -> None:
    with balanced() as worker:
        seen = [health(worker.url)]
        early = ask(f"{worker.url}/generate", INPUT("plain"))
        assert early[0] == 503 and "Retry-After" in early[2], early
        until(lambda: seen.append(health(worker.url)) or seen[-1] == 200, what=f"not ready: {seen}")
        assert seen[0] == 204 and set(seen) == {204, 200}, seen
        status, output, _ = ask(f"{worker.url}/generate", INPUT("plain"))
        assert status == 200, output
        check_pictures(output)
        status, shown, _ = ask(f"{worker.url}/runsync", {"input": INPUT("plain")})
        assert status == 200 and shown["status"] == "COMPLETED" and shown["executionTime"] > 0, shown
        check_pictures(shown["output"])
        status, answer, _ = ask(f"{worker.url}/generate", INPUT("error"))
        assert status == 400 and "steps" in answer["error"], answer
        assert ask(f"{worker.url}/runsync", {"inpt": {}})[0] == 400
        assert worker.terminate() == 0, worker.text()


def health_has_its_own_place() -> None:
    port = free_port()
    with balanced(PORT_HEALTH=str(port), HEALTH_CHECK_PATH="/healthz") as worker:
        until(lambda: health(f"http://127.0.0.1:{port}", "/healthz") == 200)
        assert health(worker.url, "/healthz") == 404
        assert ask(f"http://127.0.0.1:{port}/generate", INPUT("plain"))[0] == 404
    made = subprocess.run([PROGRAM, "runpod", "--load-balancing", "--data-dir", "/tmp"], capture_output=True, text=True,
                          env=os.environ | {"PORT": "http"})
    assert made.returncode == 1 and "PORT" in made.stderr, made


def more_than_it_takes_is_refused() -> None:
    with balanced() as worker:
        until(lambda: health(worker.url) == 200)
        slow = [Asked(worker.url, "/generate", INPUT("very slow")) for _ in range(6)]
        until(lambda: sum(one.status == 503 for one in slow) == 2, 10, "nobody is refused")
        assert all("Retry-After" in one.fields for one in slow if one.status == 503)
        # Clients that leave give their places back within one step.
        began = time.monotonic()
        for one in slow:
            if one.status != 503:
                one.cut()
        until(lambda: ask(f"{worker.url}/generate", INPUT("plain"))[0] == 200, 20, "no place is given back")
        assert time.monotonic() - began < 10, "pictures were drawn for nobody"
        assert worker.terminate() == 0, worker.text()


def drains() -> None:
    with balanced(LIMNER_DRAIN_SECONDS="60") as worker:
        until(lambda: health(worker.url) == 200)
        one = Asked(worker.url, "/generate", INPUT("slow"))
        time.sleep(0.5)
        worker.process.send_signal(signal.SIGTERM)
        until(lambda: health(worker.url) == 503, 5, "it does not say that it drains")
        assert ask(f"{worker.url}/generate", INPUT("plain"))[0] == 503
        one.join(60)
        assert one.status == 200, (one.status, one.answer)
        check_pictures(one.answer, 2)
        assert worker.process.wait(20) == 0, worker.text()


def drains_no_longer_than_it_may() -> None:
    with balanced(LIMNER_DRAIN_SECONDS="1") as worker:
        until(lambda: health(worker.url) == 200)
        one = Asked(worker.url, "/generate", INPUT("very slow"))
        time.sleep(0.5)
        assert worker.terminate(30) == 1, worker.text()
        one.join(5)
        assert one.status == 503, (one.status, one.answer)


ALONE = [a_signal_finishes_what_runs, wrong_options_are_refused, loads_and_then_draws, health_has_its_own_place,
         more_than_it_takes_is_refused, drains, drains_no_longer_than_it_may]


def told(story, *arguments) -> bool:
    began = time.monotonic()
    try:
        story(*arguments)
    except Exception:
        print(f"FAILED {story.__name__}\n{traceback.format_exc()}", flush=True)
        return False
    print(f"passed {story.__name__} ({time.monotonic() - began:.1f} s)", flush=True)
    return True


def main() -> int:
    global PROGRAM
    use_packages("runpod-venv", ["runpod==1.12.0"])
    PROGRAM, names = os.path.abspath(sys.argv[1]), sys.argv[2:]
    chosen = [story for story in HOME + ALONE if not names or story.__name__ in names]
    good = True
    with Started("--rp_serve_api", "--rp_api_port", "0", "--rp_api_concurrency", "2") as worker:
        os.environ["RUNPOD_ENDPOINT_BASE_URL"] = f"{worker.url}/v2"
        import runpod
        endpoint = runpod.Endpoint("local", api_key="any")
        for story in [story for story in HOME if story in chosen]:
            good = told(story, endpoint, worker.url) and good
        ended = worker.terminate()
        if not good or ended != 0:
            print(f"--- the worker ended with {ended}, its log with ---\n{worker.text()[-3000:]}")
    for story in [story for story in ALONE if story in chosen]:
        good = told(story) and good
    return 0 if good and ended == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
