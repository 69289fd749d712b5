"""The reference worker: RunPod's own Python SDK around a handler that draws nothing.

  sdk_worker.py [--mode plain|stream|aggregate|refresh|unfit] [--concurrency N]

Input {"prompt": text, "test"?: {...}} -> {"images": [base64], "seeds": [0]}. `test` may ask for `seconds` of work,
`progress` updates, `partials` (streaming modes), `bytes` of output, `refresh` of the worker, an `error` in the answer,
a `raise`, or `fails_once`. A stream is a property of the SDK's handler, not of a job: hence the modes.
"""

import argparse
import asyncio
import sys

import runpod

failed_before = set()


def answer(job: dict) -> dict:
    test = job["input"].get("test", {})
    if not isinstance(job["input"].get("prompt"), str):
        return {"error": "prompt: want a string"}
    if "raise" in test:
        raise RuntimeError(test["raise"])
    if "error" in test:
        return {"error": test["error"]}
    if test.get("fails_once") and job["id"] not in failed_before:
        failed_before.add(job["id"])
        return {"error": "not this time"}
    output = {"images": ["QUJD" * (test.get("bytes", 12) // 4)], "seeds": [0]}
    return output | ({"refresh_worker": True} if test.get("refresh") else {})


async def handle(job: dict):
    test = job["input"].get("test", {})
    for step in range(test.get("progress", 0)):
        # Each update has a thread and a connection of its own; the pause keeps them in order.
        runpod.serverless.progress_update(job, {"step": step + 1, "steps": test["progress"]})
        await asyncio.sleep(0.4)
    await asyncio.sleep(test.get("seconds", 0))
    return answer(job)


async def handle_stream(job: dict):
    test = job["input"].get("test", {})
    for partial in range(test.get("partials", 0)):
        yield {"step": partial + 1}
    yield answer(job)


def fail_fitness() -> None:
    raise RuntimeError("the model cannot be read")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", choices=("plain", "stream", "aggregate", "refresh", "unfit"), default="plain")
    parser.add_argument("--concurrency", type=int, default=1)
    arguments = parser.parse_args()
    sys.argv = sys.argv[:1]  # the SDK reads what is left
    if arguments.mode == "unfit":
        runpod.serverless.register_fitness_check(fail_fitness)
    streams = arguments.mode in ("stream", "aggregate")
    runpod.serverless.start({
        "handler": handle_stream if streams else handle,
        "return_aggregate_stream": arguments.mode == "aggregate",
        "refresh_worker": arguments.mode == "refresh",
        "concurrency_modifier": lambda current: arguments.concurrency,
    })


if __name__ == "__main__":
    main()
