"""What two workers said to the control plane, in a form that can be compared.

A trace file holds, per channel, what was asked: for `results` and `stream` every exchange in order, job by job; for
`take`, `stop` and `ping` the set of different exchanges, since how often they come is a matter of time. Ids, the SDK's
version and long strings are replaced. `reduced` leaves of it what the protocol fixes whatever the worker draws.
"""

import json
import re

from control_plane import ENDPOINT, ControlPlane, Exchange

KEPT_HEADERS = {"GET": ("Authorization",), "POST": ("Authorization", "Content-Type", "charset", "X-Request-ID")}
JSON_ERROR = "{a string of JSON with %s}"
LONG = 200


class Names:
    """Replaces ids by names that every run gives them: jobs are counted in the order of their submission."""

    def __init__(self, plane: ControlPlane, worker: str, jobs: list[str]):
        self.texts = {job: f"{{job {number}}}" for number, job in enumerate(jobs, 1)}
        self.texts |= {worker: "{worker}", ENDPOINT: "{endpoint}", plane.url: "{plane}"}

    def text(self, text: str) -> str:
        for given, name in self.texts.items():
            text = text.replace(given, name)
        return f"{{string of {len(text)}}}" if len(text) > LONG else text

    def value(self, value):
        if isinstance(value, dict):
            return {name: self.error(item) if name == "error" else self.value(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self.value(item) for item in value]
        return self.text(value) if isinstance(value, str) else value

    def error(self, error):
        try:
            return JSON_ERROR % ", ".join(json.loads(error))
        except (TypeError, ValueError):
            text = error if isinstance(error, str) else json.dumps(error)
            return re.sub(r"traceback: .*", "traceback: {...}", text, flags=re.DOTALL)


def written(exchange: Exchange, names: Names) -> dict:
    query = {name: "{version}" if name == "runpod_version" else
             names.value(value.split(",")) if name == "job_id" else names.text(value)
             for name, value in exchange.query}
    if isinstance(query.get("job_id"), list):
        query["job_id"].sort()
    folded = {name.lower(): value for name, value in exchange.headers.items()}
    headers = {name: names.text(folded[name.lower()]) for name in KEPT_HEADERS[exchange.method]
               if name.lower() in folded}
    entry = {"method": exchange.method, "path": names.text(exchange.path), "query": query, "headers": headers}
    if exchange.body is not None:
        entry["body"] = names.value(exchange.body)
    return entry | {"answer": exchange.answer} | ({"jobs": len(exchange.given)} if exchange.given else {})


def different(entries: list[dict]) -> list[dict]:
    texts = sorted({json.dumps(entry, sort_keys=True) for entry in entries})
    return [json.loads(text) for text in texts]


def written_trace(plane: ControlPlane, worker: str, jobs: list[str], channels: tuple) -> dict:
    names, trace = Names(plane, worker, jobs), {}
    for channel in channels:
        if channel == "results":
            for number, job in enumerate(jobs, 1):
                trace[f"job {number}"] = [written(exchange, names) for exchange in plane.trace
                                          if exchange.job == job and exchange.channel in ("done", "stream")]
            continue
        entries = [written(exchange, names) for exchange in plane.seen(channel) if exchange.answer]
        # An idle poll may or may not fit in beside real work; alone it is what the scenario is about.
        busy = [entry for entry in entries if entry["answer"] != 204]
        trace[channel] = different(busy or entries)
    return trace


def reduced(trace: dict) -> dict:
    """The trace without what a job's output says and without what only tells an SDK's build."""
    def without_meaning(entry: dict) -> dict:
        entry = json.loads(json.dumps(entry))
        body = entry.get("body", {})
        for name in ("output", "error"):
            if name in body:
                body[name] = f"{{{name}}}"
        entry["query"].pop("runpod_version", None)
        for name in ("check", "reason"):
            if name in entry["query"]:
                entry["query"][name] = f"{{{name}}}"
        return entry

    kept = {}
    for channel, entries in trace.items():
        entries = [without_meaning(entry) for entry in entries]
        # How many partial outputs and progress updates there are is the job's affair.
        kept[channel] = ([entry for entry, before in zip(entries, [None, *entries]) if entry != before]
                         if channel.startswith("job ") else different(entries))
    return kept


def difference(wanted: dict, seen: dict) -> str:
    """The first place where two traces part, in a sentence; empty when they are equal."""
    for channel in sorted(wanted.keys() | seen.keys()):
        first, second = wanted.get(channel), seen.get(channel)
        if first is None or second is None:
            return f"{channel}: only in the {'seen' if first is None else 'wanted'} trace"
        for number in range(max(len(first), len(second))):
            want = first[number] if number < len(first) else None
            have = second[number] if number < len(second) else None
            if want != have:
                return (f"{channel}, exchange {number + 1}:\n  want {json.dumps(want, sort_keys=True)}\n"
                        f"  seen {json.dumps(have, sort_keys=True)}")
    return ""
