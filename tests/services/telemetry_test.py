"""What an operator sees of a real `limner serve`: traces, metrics and logs, read by other people's programs.

  telemetry_test.py LIMNER

Traces go to a collector of the standard library that decodes them with PyPI's opentelemetry-proto; /metrics goes
through `promtool check metrics`, and deploy/prometheus through `promtool test rules`. Exits with 77 (skipped) where neither of the two is installed.
"""

import base64
import http.server
import importlib.util
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "fault"))
from service_harness import SMALLEST, Service, wait_until  # noqa: E402

SKIPPED = 77
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
STAGES = ("encode", "denoise", "decode", "post", "deliver")  # of a job, one after the other
CLOCK_SLACK = 5_000_000  # nanoseconds: spans are told in whole milliseconds
PARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"


class Collector(http.server.ThreadingHTTPServer):
    """OTLP/HTTP at /v1/traces: keeps bodies; the first request is answered 503."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies, self.problems, self.requests = [], [], 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def spans(self) -> list[dict]:
        return [span for body in self.bodies for group in body["resourceSpans"]
                for scope in group["scopeSpans"] for span in scope["spans"]]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        wanted = {"Content-Type": "application/json", "api-key": "a b"}
        for name, value in wanted.items():
            if self.headers.get(name) != value:
                self.server.problems.append(f"{name}: {self.headers.get(name)!r}")
        if self.path != "/v1/traces":
            self.server.problems.append(self.path)
        self.server.requests += 1
        first = self.server.requests == 1
        if not first:
            self.server.bodies.append(json.loads(body))
        self.send_response(503 if first else 200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


def check_with_proto(bodies: list[dict]) -> int:
    """Every body is an ExportTraceServiceRequest without an unknown field. OTLP's JSON writes ids in hex where
    protobuf's mapping has base64; that one difference is undone first."""
    from google.protobuf import json_format
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

    count = 0
    for body in bodies:
        text = json.loads(json.dumps(body))
        for group in text["resourceSpans"]:
            for scope in group["scopeSpans"]:
                for span in scope["spans"]:
                    for key in {"traceId", "spanId", "parentSpanId"} & set(span):
                        span[key] = base64.b64encode(bytes.fromhex(span[key])).decode()
        request = json_format.ParseDict(text, trace_service_pb2.ExportTraceServiceRequest())
        for group in request.resource_spans:
            names = {a.key: a.value.string_value for a in group.resource.attributes}
            assert names["service.name"] == "limner", names
            for scope in group.scope_spans:
                for span in scope.spans:
                    count += 1
                    assert len(span.trace_id) == 16 and len(span.span_id) == 8, span
                    assert span.start_time_unix_nano <= span.end_time_unix_nano, span
                    assert span.start_time_unix_nano > 1_600_000_000 * 10**9, span
    return count


def check_trace(spans: list[dict]) -> None:
    """From the client's span to the stages of its job: one tree, in the order of things."""
    ours = {span["spanId"]: span for span in spans if span["traceId"] == TRACE_ID}
    roots = [span for span in ours.values() if span.get("parentSpanId") == "00f067aa0ba902b7"]
    assert len(roots) == 1, f"want one span of the POST, got {[span['name'] for span in roots]}"
    assert roots[0]["kind"] == 2, roots[0]
    drawn = [span for span in ours.values() if span is not roots[0]]
    assert drawn, "no span of the worker in the client's trace"
    for span in drawn:
        assert span.get("parentSpanId") in ours, f"{span['name']} hangs in the air"
    named = {span["name"]: span for span in drawn}
    for name in ("queue", "job", *STAGES):
        assert name in named, f"no span {name}, only {sorted(named)}"
        above = named["job"] if name in STAGES else roots[0]
        assert named[name]["parentSpanId"] == above["spanId"], f"{name} is not below {above['name']}"
    # Pictures are encoded on a thread of their own, so only what one thread does has an order.
    for former, latter in (("queue", "encode"), ("encode", "denoise"), ("denoise", "decode"), ("post", "deliver")):
        ended, begun = int(named[former]["endTimeUnixNano"]), int(named[latter]["startTimeUnixNano"])
        assert ended <= begun + CLOCK_SLACK, f"{latter} began before {former} had ended"
    took = int(named["denoise"]["endTimeUnixNano"]) - int(named["denoise"]["startTimeUnixNano"])
    assert took > 0, "the denoising took no time"


def check_metrics(text: str, promtool: str) -> None:
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    for name in ("limner_requests_total", "limner_job_duration_seconds_count", "limner_denoise_step_seconds_count",
                 "limner_queue_wait_seconds_count", "limner_model_load_seconds_count"):
        assert f"\n{name}" in text, f"no {name} after a picture"


def check_rules(promtool: str) -> None:
    folder = ROOT / "deploy" / "prometheus"
    for words in (["check", "config", "prometheus.yml"], ["test", "rules", "alerts_test.yml"]):
        checked = subprocess.run([promtool, *words], cwd=folder, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout + checked.stderr


def check_logs(lines: list[str]) -> None:
    parsed = [json.loads(line) for line in lines if line.startswith("{")]
    assert len(parsed) > 3
    for line in parsed:
        assert list(line)[:3] == ["time", "level", "message"], line
        assert SMALLEST["prompt"] not in json.dumps(line), "a prompt in the log"
        assert "a b" not in json.dumps(line) and "lmn_" not in json.dumps(line), "a secret in the log"


def main() -> None:
    promtool = shutil.which("promtool")
    proto = importlib.util.find_spec("opentelemetry") is not None
    if not promtool and not proto:
        print("skipped: neither promtool nor opentelemetry-proto here")
        sys.exit(SKIPPED)
    if promtool:
        check_rules(promtool)
    collector = Collector()
    with tempfile.TemporaryDirectory() as folder:
        service = Service(sys.argv[1], pathlib.Path(folder) / "data", LIMNER_LOG_FORMAT="json",
                          OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{collector.server_port}",
                          OTEL_EXPORTER_OTLP_HEADERS="api-key=a%20b")
        try:
            service.start()
            answer = service.client().request("POST", "/v1/generations", {**SMALLEST, "steps": 8},
                                              {"traceparent": PARENT, "Prefer": "wait=60"})
            assert answer.status == 200, answer.body
            # A job is counted when its lease ends, which its client may hear of first.
            wait_until(lambda: b"\nlimner_job_duration_seconds_count" in
                       service.client().request("GET", "/metrics").body, 20, "no job in the metrics")
            metrics = service.client().request("GET", "/metrics")
            assert metrics.status == 200, metrics.status
            if promtool:
                check_metrics(metrics.body.decode(), promtool)
            wait_until(lambda: any(span["traceId"] == TRACE_ID for span in collector.spans()), 20, "no trace")
        finally:
            service.stop()
        assert service.process.returncode == 0, service.process.returncode
        assert not collector.problems, collector.problems
        check_trace(collector.spans())
        count = check_with_proto(collector.bodies) if proto else 0
        check_logs(service.log_path.read_text().splitlines())
    print(f"{collector.requests} exports, {len(collector.spans())} spans, {count} of them decoded with protobuf; "
          f"promtool: {'good' if promtool else 'not here'}")


if __name__ == "__main__":
    main()
