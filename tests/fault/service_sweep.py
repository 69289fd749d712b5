"""The whole service, struck at each call by which it changes its files: killed, failing, without room, without power.

    service_sweep.py build/limner build/libio_shim.so [--all | --runs N] [--only SWEEP] [--seed N] [--json FILE]

A client tells the fixed story of sweep_story.py and asks again until it is answered. Whatever happens to the service
meanwhile: once it runs undisturbed, all that was answered holds. --all strikes at every call of a recorded run, else
--runs strikes of each sweep are drawn by chance, of as many different points as there are.
"""

import argparse
import collections
import concurrent.futures
import copy
import itertools
import json
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback

from io_shim import Disk, points, read_record
from service_harness import Receiver, Service, wait_until
from sweep_story import PATIENCE, Ledger, Story, Telling, judge

SWEEPS = ["power", "first_power", "kill", "first_kill", "error", "first_error", "errors", "full"]
# A database brings its log of writes in at 1000 pages of 4 KiB: the story does it.
NEARLY_LONG_ENOUGH = 900 * (4096 + 24)
FULL_FOR_S = 1.0
BROKEN_FOR_S = 4.0
ERRORS_RUNS = 40  # each takes that long


class Place:
    """A folder of one run: its disk, with the service's data folder, the record and the log."""

    def __init__(self, folder: pathlib.Path, program: str, shim: str, key: str | None):
        self.folder, self.shim = folder, shim
        self.disk, self.record, self.full = folder / "disk", folder / "record", folder / "full"
        self.service = Service(program, self.disk / "data", LIMNER_DRAIN_SECONDS="3")
        self.service.log_path = folder / "log"
        self.service.key = key

    def shimmed(self, **wishes: str) -> dict:
        return {"LD_PRELOAD": self.shim, "IO_SHIM_FOLDER": str(self.disk), "IO_SHIM_RECORD": str(self.record),
                **{"IO_SHIM_" + name.upper(): value for name, value in wishes.items()}}

    def finish(self, receiver: Receiver, ledger: Ledger) -> dict:
        """Undisturbed, the story comes to its end and all is well."""
        self.service.start()
        telling = Telling(Story(self.service, receiver, ledger))
        wait_until(telling.is_over, 2 * PATIENCE, "the story has no end")
        telling.stop()
        return judge(self.service, receiver, ledger)


class Recording:
    """A run without a strike: its calls, what the client was told and when, and the disk before it."""

    def __init__(self, place: Place):
        service = place.service
        self.place, self.first = place, service.key is None
        self.disk = Disk(place.disk)
        self.receiver = Receiver()
        self.ledger = Ledger(lambda: place.record.stat().st_size)
        self.receiver.now = self.ledger.now
        if self.first:
            service.key = "not known yet"
        service.start(**place.shimmed())
        if self.first:
            service.key = wait_until(service.printed_key, PATIENCE, "no key was printed")
        self.ready = self.ledger.now()
        telling = Telling(Story(service, self.receiver, self.ledger))
        telling.thread.join()
        telling.stop()
        assert not telling.story.refusals, telling.story.refusals
        service.stop()
        self.told = {identity: (self.receiver.moments[identity], *bodies)
                     for identity, bodies in self.receiver.bodies.items()}
        self.calls = read_record(place.record)
        self.check()

    def check(self):
        """Nothing escapes the shim: its record makes the folder, byte by byte."""
        disk = copy.deepcopy(self.disk)
        for call in self.calls:
            disk.apply(call)
        made = self.place.folder / "made"
        disk.materialise(made, "kept", random.Random(0))
        differing = subprocess.run(["diff", "-r", "-x", "*-shm", made, self.place.disk], capture_output=True, text=True)
        assert differing.returncode == 0, f"the record misses something: {differing.stdout}"
        shutil.rmtree(made)

    def named(self, chance: random.Random) -> list[tuple[str, int]]:
        """The calls as points, of the first start only those until it serves. Of writes to one file that follow each
        other the first, the last and one between: nobody reads a log's part that is not whole."""
        calls = [call for call in self.calls if not self.first or call.end <= self.ready]
        chosen = []
        for _, group in itertools.groupby(zip(calls, points(calls)), lambda one: (one[0].operation, one[0].path)):
            names = [name for _, name in group]
            if names[0][0].startswith("write ") and len(names) > 3:
                names = [names[0], chance.choice(names[1:-1]), names[-1]]
            chosen += names
        return chosen


class Sweeps:
    def __init__(self, arguments, folder: pathlib.Path):
        self.arguments, self.folder = arguments, folder
        self.chance = random.Random(arguments.seed)
        self.seen = collections.defaultdict(collections.Counter)  # by sweep, by lock
        self.lock = threading.Lock()
        self.key = self.prepare()
        self.later = Recording(self.place("later"))
        self.start = Recording(self.place("start", first=True))

    def prepare(self) -> str:
        """A service that has started, whose database's log is soon long enough to be brought in."""
        service = Place(self.folder / "prepared", self.arguments.program, self.arguments.shim, None).service
        service.start()
        while (service.folder / "limner.db-wal").stat().st_size < NEARLY_LONG_ENOUGH:
            answer = service.client().request("POST", "/v1/queue/resume")
            assert answer.status == 200, answer
        service.kill()
        return service.key

    def place(self, name: str, first: bool = False) -> Place:
        place = Place(self.folder / name, self.arguments.program, self.arguments.shim, None if first else self.key)
        place.service.folder.rmdir()
        if not first:
            shutil.copytree(self.folder / "prepared/disk/data", place.service.folder,
                            ignore=shutil.ignore_patterns("*-shm"))
        return place

    def choose(self, candidates: list, point) -> list:
        """All, or so many by chance that each point has its turn before any has a second one."""
        if self.arguments.all:
            return candidates
        order = self.chance.sample(candidates, len(candidates))
        turns = collections.Counter()
        ranked = []
        for candidate in order:
            turns[point(candidate)] += 1
            ranked.append((turns[point(candidate)], len(ranked), candidate))
        return [candidate for _, _, candidate in sorted(ranked)[:self.arguments.runs]]

    def tasks(self, sweep: str) -> list:
        """Functions, each a run or some that must follow each other."""
        first = sweep.startswith("first_")
        recording = self.start if first else self.later
        kind = sweep.removeprefix("first_")
        if kind == "power":
            return [lambda: self.power(sweep, recording)]
        if kind == "full":
            return [lambda at=at: self.run_full(at) for at in range(1, 8)]
        named = recording.named(self.chance)
        strikes = [(point, number, kind) for point, number in named]
        if kind == "kill":
            # Between a call and the next one somebody may have been answered.
            strikes = [(point, number, how) for point, number in named for how in ("kill-before", "kill-after")
                       if how == "kill-before" or not point.startswith("write ")]
        if kind == "errors":
            strikes = self.chance.sample(strikes, min(len(strikes), ERRORS_RUNS))
        self.seen[sweep].update(calls=len(recording.calls), points=len({point for point, _ in named}))
        chosen = self.choose(strikes, lambda strike: (strike[0], strike[2]))
        return [lambda strike=strike, name=f"{sweep}-{index}": self.strike(sweep, name, first, *strike)
                for index, strike in enumerate(chosen)]

    def strike(self, sweep: str, name: str, first: bool, point: str, number: int, fault: str):
        """One story, struck once."""
        place = self.place(name, first)
        receiver, ledger = Receiver(), Ledger()
        try:
            place.service.launch(**place.shimmed(point=point, nth=str(number), fault=fault))
            telling = None if first else Telling(Story(place.service, receiver, ledger))
            struck = live_through(place, telling, fault)
            place.service.key = place.service.printed_key() if first else self.key
            found = place.finish(receiver, ledger)
        except BaseException:
            print(f"{name}: {fault} at {point}, number {number}\n{place.service.log_tail()}", file=sys.stderr)
            raise
        finally:
            place.service.stop()
            receiver.close()
        self.count(sweep, found, struck=struck, runs=1)
        shutil.rmtree(place.folder)

    def run_full(self, at: int):
        """A disk that is full while the `at`-th request is asked, and is freed again."""
        place = self.place(f"full-{at}")
        receiver, ledger = Receiver(), Ledger()

        def fill(number: int):
            if number == at:
                place.full.touch()
                threading.Timer(FULL_FOR_S, place.full.unlink, (True,)).start()

        try:
            place.service.start(**place.shimmed(full=str(place.full)))
            telling = Telling(Story(place.service, receiver, ledger, fill))
            struck = live_through(place, telling, "full")
            assert 500 not in telling.story.refusals, "a full disk is no mistake of ours"
            found = place.finish(receiver, ledger)
        except BaseException:
            print(f"full at request {at}\n{place.service.log_tail()}", file=sys.stderr)
            raise
        finally:
            place.service.stop()
            receiver.close()
        self.count("full", found, struck=struck, runs=1)
        shutil.rmtree(place.folder)

    def power(self, sweep: str, recording: Recording):
        """The power is cut, each image is started, and the story goes on."""
        calls, disk, done = recording.calls, copy.deepcopy(recording.disk), 0
        # Before a sync, when most waits to be written, and about names. What is sure does not change in between.
        cuts = [(made, how) for made, call in enumerate(calls) for how in ("lost", "torn")
                if call.operation.startswith("sync") or call.operation != "write" and how == "torn"]
        self.seen[sweep].update(calls=len(calls), cuts=len(cuts))
        for made, how in sorted(self.choose(cuts, lambda cut: (calls[cut[0]].point, cut[1]))):
            for call in calls[done:made]:
                disk.apply(call)
            done = made
            self.image(sweep, recording, disk, made, how)

    def image(self, sweep: str, recording: Recording, disk: Disk, made: int, how: str):
        moment = recording.calls[made - 1].end if made else 0
        knows_key = not recording.first or moment >= recording.ready
        key = recording.place.service.key if knows_key else None
        place = Place(self.folder / f"{sweep}-{made}-{how}", self.arguments.program, self.arguments.shim, key)
        disk.materialise(place.disk, how, random.Random(made))
        recording.receiver.begin_again(
            {identity: {body} for identity, (at, body) in recording.told.items() if at <= moment})
        try:
            found = place.finish(recording.receiver, recording.ledger.as_of(moment))
        except BaseException:
            print(f"power cut before call {made} of {len(recording.calls)}, {recording.calls[made].point}; what was not "
                  f"synced is {how}\n{place.service.log_tail()}", file=sys.stderr)
            raise
        finally:
            place.service.stop()
        self.count(sweep, found, runs=1)
        shutil.rmtree(place.folder)

    def count(self, sweep: str, found: dict, **numbers):
        with self.lock:
            self.seen[sweep].update({**found, **numbers})


def live_through(place: Place, telling: Telling | None, fault: str) -> bool:
    """Until the story is over (or the service serves), the process has ended, or, where nothing works any longer, some
    seconds have passed; ends the process. Whether it was struck."""
    service = place.service

    def over() -> bool:
        if telling:
            return telling.is_over() or service.process.poll() is not None
        try:
            return service.ready()
        except AssertionError:
            return True  # the process has ended

    if fault == "errors":
        wait_until(lambda: over() or answers(service), PATIENCE, "it neither serves nor ends")
    end = time.monotonic() + (BROKEN_FOR_S if fault == "errors" else PATIENCE)
    while not over():
        if time.monotonic() > end:
            assert fault == "errors", "the story has no end"
            break
        time.sleep(0.02)
    by_itself = service.process.poll() is not None
    if not by_itself:
        service.process.terminate()
    code = service.process.wait(PATIENCE)
    if telling:
        telling.stop()
    if fault.startswith("kill"):
        assert code in (0, -signal.SIGKILL), f"it ended with {code}"
        return code != 0
    assert code >= 0, f"it ended with {code}"
    if by_itself:
        assert code > 0 and "\nlimner: " in "\n" + service.log_path.read_text(), f"it ended with {code}, saying nothing"
    return any(call.error for call in read_record(place.record))


def answers(service: Service) -> bool:
    try:
        return service.client(key=None).request("GET", "/livez").status == 200
    except OSError:
        return False


def run(arguments, folder: pathlib.Path) -> tuple[dict, int]:
    sweeps = Sweeps(arguments, folder)
    names = [arguments.only] if arguments.only else SWEEPS
    failures = 0
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        running = [pool.submit(task) for name in names for task in sweeps.tasks(name)]
        for count, one in enumerate(concurrent.futures.as_completed(running), 1):
            try:
                one.result()
            except Exception:
                traceback.print_exc()
                failures += 1
                if failures >= arguments.most_failures:
                    pool.shutdown(cancel_futures=True)
                    break
            if count % 50 == 0:
                print(f"  {count} of {len(running)}", flush=True)
    return {name: dict(sweeps.seen[name]) for name in names}, failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("shim")
    parser.add_argument("--all", action="store_true", help="strike at every call")
    parser.add_argument("--runs", type=int, default=6, help="strikes of each sweep otherwise")
    parser.add_argument("--only", choices=SWEEPS)
    parser.add_argument("--jobs", type=int, default=2, help="services at once")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--most-failures", type=int, default=1, help="end after so many")
    parser.add_argument("--json", type=pathlib.Path, help="where to write what was seen")
    arguments = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="limner-sweep-"))
    began = time.monotonic()
    seen, failures = run(arguments, folder)
    seen = {"seed": arguments.seed, "seconds": round(time.monotonic() - began), "failures": failures, **seen}
    for name, numbers in seen.items():
        print(f"{name}: {numbers}")
    if failures:
        print(f"left for you to look at: {folder}", file=sys.stderr)
    else:
        shutil.rmtree(folder)
    if arguments.json:
        arguments.json.write_text(json.dumps(seen, indent=2) + "\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
