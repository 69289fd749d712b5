"""A serverless worker's life with the platform, told to RunPod's own SDK and to ours, and what each said compared.

  scenarios.py sdk [NAME...]               the reference worker, against the traces kept in traces/
  scenarios.py sdk --write [NAME...]       the same, and keeps its traces
  scenarios.py limner PROGRAM [NAME...]    `PROGRAM runpod`

Wants runpod from PyPI, in .cache/runpod-venv; exits with 77 (skipped) when it cannot be had. Each scenario asserts what
every worker must do. Where the SDK does worse than we promise, both are asserted and the traces are not compared.
"""

import argparse
import json
import pathlib
import signal
import sys
import time

from control_plane import CLIENT_KEY, ENDPOINT
from harness import WORKER, Run, tell
from workers import LimnerWorker, SdkWorker

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from python_packages import use_packages  # noqa: E402

PACKAGES = ["runpod==1.12.0"]
SCENARIOS = []
LARGE = 400_000  # bytes; what jobs of that kind give is more


def scenario(mode: str = "plain", concurrency: int = 1, channels: tuple = ("take", "results"), sdk_loses: bool = False,
             **plane):
    """`mode` and `concurrency` are the worker's, `plane` the control plane's; `channels` go into the trace."""
    def add(story):
        story.mode, story.concurrency, story.channels, story.plane = mode, concurrency, channels, plane
        story.sdk_loses = sdk_loses
        SCENARIOS.append(story)
        return story
    return add


# -- the ordinary life --


@scenario()
def plain_job(run: Run) -> None:
    job = run.submit(webhook="https://client.example/hook")
    run.start()
    run.completed(job)
    done = run.plane.seen("done")[0]
    assert done.query == [("gpu", "NVIDIA H200"), ("isStream", "false")], done.query
    assert ("job_in_progress", "0") in run.plane.seen("take")[0].query


@scenario()
def several_jobs(run: Run) -> None:
    jobs = [run.submit() for _ in range(3)]
    run.start()
    run.completed(*jobs)
    taken = [exchange.given[0] for exchange in run.plane.seen("take") if exchange.given]
    assert taken == jobs, "not in the order of the queue"


@scenario(mode="stream")
def stream(run: Run) -> None:
    job = run.submit("stream")
    run.start()
    run.ended(job)
    answer = run.ask("GET", f"stream/{job}")
    assert answer["status"] == "COMPLETED" and len(answer["stream"]) >= 2, answer
    assert dict(run.plane.seen("done")[0].query)["isStream"] == "true"
    assert all(dict(part.query)["isStream"] == "false" for part in run.plane.seen("stream"))


@scenario(mode="aggregate")
def stream_aggregated(run: Run) -> None:
    job = run.submit("stream")
    run.start()
    run.ended(job)
    run.worker.check_aggregate(run.job(job).output, [part["output"] for part in run.job(job).chunks])


@scenario(mode="stream")
def stream_that_fails(run: Run) -> None:
    job = run.submit("stream error")
    run.start()
    run.ended(job)
    assert run.job(job).status == "FAILED" and run.job(job).error


@scenario()
def progress(run: Run) -> None:
    job = run.submit("progress")
    run.start()
    assert run.plane.wait(lambda: run.job(job).output is not None), "no progress came"
    run.completed(job)
    updates = [part for part in run.plane.seen("done") if part.body.get("status") == "IN_PROGRESS"]
    assert updates and all(dict(part.query)["isStream"] == "false" for part in updates)


@scenario()
def error_answered(run: Run) -> None:
    job = run.submit("error")
    run.start()
    run.ended(job)
    assert run.job(job).status == "FAILED" and isinstance(run.job(job).error, str)


@scenario()
def error_raised(run: Run) -> None:
    job = run.submit("raise")
    run.start()
    run.ended(job)
    told = json.loads(run.job(job).error)
    assert told["error_type"] and told["error_message"], told


@scenario()
def retry(run: Run) -> None:
    job = run.submit("fails once")
    run.start()
    run.ended(job)
    assert run.job(job).status == "FAILED"
    assert run.ask("POST", f"retry/{job}") == {"id": job, "status": "IN_QUEUE"}
    run.ended(job)
    assert run.job(job).status == "COMPLETED" and run.job(job).takes == 2
    run.ask("POST", f"retry/{job}", status=400)


@scenario()
def refresh_by_job(run: Run) -> None:
    job = run.submit("refresh")
    run.start()
    run.ended(job)
    body = run.job(job).results[0]
    assert body["stopPod"] is True and "refresh_worker" not in body["output"], body
    assert run.plane.recycled == [WORKER] and run.process.poll() is None


@scenario(mode="refresh")
def refresh_always(run: Run) -> None:
    job = run.submit()
    run.start()
    run.ended(job)
    assert run.job(job).results[0]["stopPod"] is True
    assert run.exits() == 0


@scenario(concurrency=3)
def batch(run: Run) -> None:
    jobs = [run.submit("slow") for _ in range(3)]
    run.start()
    run.completed(*jobs)
    first = run.plane.seen("take")[0]
    assert "/job-take-batch/" in first.path and dict(first.query)["batch_size"] == "3"
    assert first.given == jobs


@scenario(channels=("take", "results", "ping"))
def ping(run: Run) -> None:
    job = run.submit("slow")
    run.start()
    run.completed(job)
    named = [dict(exchange.query).get("job_id") for exchange in run.plane.seen("ping")]
    assert job in named, f"no ping named the job: {named}"
    assert run.plane.wait(lambda: "job_id" not in dict(run.plane.seen("ping")[-1].query)), "an idle ping names a job"


@scenario(mode="unfit", channels=("take", "ping"))
def fitness(run: Run) -> None:
    run.start()
    assert run.exits(60) == 1
    said = run.plane.unhealthy.get(WORKER)
    assert said and said["check"] and len(said["reason"]) <= 256, said
    assert not run.plane.seen("take"), "asked for a job although unfit"


# -- answers of the platform --


@scenario(hold=0.3)
def idle(run: Run) -> None:
    run.start()
    assert run.plane.wait(lambda: len(run.plane.seen("take")) >= 3), "does not ask again after 204"


@scenario()
def take_400(run: Run) -> None:
    run.plane.fault("take", status=400, times=2)
    job = run.submit()
    run.start()
    run.completed(job)


@scenario()
def take_429(run: Run) -> None:
    run.plane.fault("take", status=429)
    job = run.submit()
    run.start()
    run.completed(job)
    first, second = run.plane.seen("take")[:2]
    assert second.at - first.at > 4, f"asked again after {second.at - first.at:.1f} s, want 5"


@scenario()
def take_5xx(run: Run) -> None:
    for status in (500, 502, 503):
        run.plane.fault("take", status=status)
    job = run.submit()
    run.start()
    run.completed(job)


@scenario()
def take_cut(run: Run) -> None:
    run.plane.fault("take", how="reset")
    run.plane.fault("take", how="half")
    job = run.submit()
    run.start()
    run.completed(job)


@scenario()
def take_nonsense(run: Run) -> None:
    run.plane.fault("take", status=200, body=b"hello", content_type="text/plain")
    for body in (b'{"id": ', b'{"id": "x"}'):
        run.plane.fault("take", status=200, body=body)
    job = run.submit()
    run.start()
    run.completed(job)


@scenario()
def result_refused_twice(run: Run) -> None:
    run.plane.fault("done", status=500, times=2)
    job = run.submit()
    run.start()
    run.completed(job)
    assert len(run.plane.seen("done")) == 3


def kept_or_lost(run: Run, job: str, attempts: int) -> None:
    """Ours delivers the result in the end; the SDK gives it up after `attempts`, tells its log alone, and goes on."""
    if run.worker.keeps_results:
        return run.completed(job, seconds=120)
    after = run.submit()
    run.completed(after)
    assert len([part for part in run.plane.seen("done") if part.job == job]) == attempts
    assert run.job(job).status == "IN_PROGRESS", "the SDK does not lose the result any more: look again"


@scenario(sdk_loses=True)
def result_refused_for_long(run: Run) -> None:
    run.plane.fault("done", status=503, times=5)
    job = run.submit()
    run.start()
    kept_or_lost(run, job, attempts=3)


@scenario(sdk_loses=True)
def result_refused_with_400(run: Run) -> None:
    run.plane.fault("done", status=400)
    job = run.submit()
    run.start()
    kept_or_lost(run, job, attempts=1)


@scenario(sdk_loses=True)
def result_cut(run: Run) -> None:
    """The SDK repeats after a status of 500 and above, never after a broken connection."""
    run.plane.fault("done", how="reset")
    job = run.submit()
    run.start()
    kept_or_lost(run, job, attempts=1)


@scenario(sdk_loses=True)
def result_answer_lost(run: Run) -> None:
    run.plane.fault("done", how="reset", after=True)
    job = run.submit()
    run.start()
    run.completed(job)
    sent = 2 if run.worker.keeps_results else 1
    assert run.plane.wait(lambda: len(run.plane.seen("done")) == sent), "not sent again"
    assert run.job(job).duplicates == 0


@scenario()
def large_result(run: Run) -> None:
    job = run.submit("large")
    run.start()
    run.completed(job)
    assert len(json.dumps(run.job(job).output)) > LARGE


@scenario(result_limit=LARGE, sdk_loses=True)
def result_over_the_limit(run: Run) -> None:
    """The SDK asks once and the job hangs; ours ends it with an error or a stored result."""
    job = run.submit("large")
    run.start()
    if run.worker.keeps_results:
        return run.ended(job)
    assert run.plane.wait(lambda: [part.answer for part in run.plane.seen("done")] == [413])
    after = run.submit()
    run.completed(after)
    assert run.job(job).status == "IN_PROGRESS"


@scenario(concurrency=2, channels=("results", "stop"))
def stop_one_job(run: Run) -> None:
    stopped, kept = run.submit("very slow"), run.submit("slow")
    run.start()
    run.named_by_ping(stopped, kept)
    time.sleep(0.5)
    assert run.ask("POST", f"cancel/{stopped}") == {"id": stopped, "status": "CANCELLED"}
    run.completed(kept)
    told = [exchange for exchange in run.plane.seen("stop") if exchange.given]
    assert [exchange.given for exchange in told] == [[stopped]]
    assert not [part for part in run.plane.seen("done") if part.job == stopped], "a stopped job gives no result"
    after = run.submit()
    run.completed(after)
    assert run.terminate(10) == 0, "the stopped job goes on"


@scenario(sdk_loses=True, channels=("results", "stop"))
def stop_before_the_job(run: Run) -> None:
    """The signal overtakes the answer that brings its job: the SDK forgets it, draws the job, and sends a result."""
    run.plane.fault("take", delay=3, after=True)
    job = run.submit()
    run.start()
    run.running(job)
    run.ask("POST", f"cancel/{job}")
    assert run.plane.wait(lambda: any(exchange.given for exchange in run.plane.seen("stop"))), "no signal was fetched"
    after = run.submit()
    run.completed(after)
    assert len(run.job(job).late) == (0 if run.worker.keeps_results else 1)


# -- the end --


@scenario()
def drain(run: Run) -> None:
    job = run.submit("slow")
    run.start()
    run.running(job)
    time.sleep(0.3)
    assert run.terminate() == 0
    run.completed(job, seconds=1)


@scenario(hold=4, channels=("results",), sdk_loses=True)
def job_handed_while_draining(run: Run) -> None:
    """A long poll is open when the end is told, and a job comes by it: the SDK loses it."""
    run.start()
    assert run.plane.wait(lambda: run.plane.seen("take")), "does not ask for jobs"
    run.process.send_signal(signal.SIGTERM)
    time.sleep(1)
    job = run.submit()
    assert run.exits() == 0
    if run.worker.keeps_results:
        assert run.job(job).status != "IN_PROGRESS", "the job is lost"
    else:
        assert run.job(job).status == "IN_PROGRESS", "the SDK does not lose the job any more: look again"


# -- RunPod's own client of an endpoint --


@scenario(channels=("results",))
def endpoint_client(run: Run) -> None:
    import runpod
    runpod.endpoint_url_base = f"{run.plane.url}/v2"
    endpoint = runpod.Endpoint(ENDPOINT, api_key=CLIENT_KEY)
    waiting = endpoint.run({"input": run.worker.input("plain")})
    assert waiting.status() == "IN_QUEUE" and endpoint.health()["jobs"]["inQueue"] == 1
    assert waiting.cancel() == {"id": waiting.job_id, "status": "CANCELLED"} and waiting.status() == "CANCELLED"
    endpoint.run({"input": run.worker.input("plain")})
    assert endpoint.purge_queue() == {"removed": 1, "status": "completed"}
    run.start()
    run.worker.check_output(endpoint.run_sync({"input": run.worker.input("plain")}, timeout=60))
    failed = endpoint.run({"input": run.worker.input("error")})
    assert failed.output(timeout=30) is None and failed.status() == "FAILED"
    assert endpoint.health()["jobs"]["completed"] == 1
    try:
        runpod.Endpoint(ENDPOINT, api_key="wrong").health()
    except RuntimeError as error:
        assert "401" in str(error)
    else:
        raise AssertionError("a wrong key is taken")
    run.jobs += run.plane.jobs


@scenario(mode="stream", channels=("results",))
def endpoint_client_streams(run: Run) -> None:
    import runpod
    runpod.endpoint_url_base = f"{run.plane.url}/v2"
    job = runpod.Endpoint(ENDPOINT, api_key=CLIENT_KEY).run({"input": run.worker.input("stream")})
    run.jobs.append(job.job_id)
    run.start()
    assert len(list(job.stream())) >= 2 and job.status() == "COMPLETED"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("worker", choices=("sdk", "limner"))
    parser.add_argument("names", nargs="*", help="for limner the program first, then scenarios; none: all")
    parser.add_argument("--write", action="store_true", help="keep the SDK's traces")
    arguments = parser.parse_intermixed_args()
    use_packages("runpod-venv", PACKAGES)
    names = list(arguments.names)
    worker = SdkWorker() if arguments.worker == "sdk" else LimnerWorker(names.pop(0))
    assert worker.is_reference or not arguments.write, "traces are the SDK's"
    unknown = set(names) - {story.__name__ for story in SCENARIOS}
    assert not unknown, f"no such scenario: {', '.join(sorted(unknown))}"
    failed = 0
    for story in SCENARIOS:
        if names and story.__name__ not in names:
            continue
        began = time.monotonic()
        outcome = tell(worker, story, arguments.write)
        failed += outcome.startswith("FAILED")
        print(f"{story.__name__:28} {time.monotonic() - began:5.1f} s  {outcome}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
