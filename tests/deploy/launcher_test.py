"""The launcher's entry script in a name space of its own: first and later starts, two at once, kill -9, bad days.

    launcher_test.py [build/limner] [--only NAME] [--kills 12] [--seed N] [--json FILE]

The cases use a small release, so that its stages can be stopped and counted; `real` is the release that script/package
makes of the build, with libtorch's wheels (fetched once, .cache/launcher/wheels), on a new volume. Exit status 77: this
machine cannot do it.
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import time
import traceback

from package_server import PackageServer
from real_release import measure
from root_folder import Container, Unavailable, make, small_disk
from small_release import SmallRelease

SKIPPED = 77
READY = "limner was here"  # what the small release's program says


class Bench:
    """A volume, a release and its server."""

    def __init__(self, folder: pathlib.Path, megabytes: int = 1):
        self.folder = folder
        self.volume = folder / "volume"
        self.volume.mkdir()
        self.home = self.volume / "limner"
        self.release = SmallRelease(folder / "one", "1", megabytes)
        self.server = PackageServer(self.release.folder, self.release.wheel_sums)
        self.containers: list[Container] = []

    def start(self, *arguments, volume=None, release=None, tools=None, **variables) -> Container:
        release = release or self.release
        given = {"LIMNER_RELEASE_URL": f"{self.server.url}/{release.archive.name}",
                 "LIMNER_RELEASE_SHA256": release.sum, "PIP_INDEX_URL": f"{self.server.url}/simple"} | variables
        started = Container(volume or self.volume, given, arguments, tools)
        self.containers.append(started)
        return started

    def starts(self, *arguments, **more) -> str:
        """What it said, once it became limner."""
        status, said = self.start(*arguments, **more).ended()
        assert status == 0 and READY in said, f"status {status}: {said}"
        return said

    def fails(self, sentence: str, **more) -> str:
        status, said = self.start(**more).ended()
        assert status == 1 and sentence in messages(said)[-1], f"status {status}, want '{sentence}' in: {said}"
        assert READY not in said
        return said

    def close(self) -> None:
        for container in self.containers:
            if container.process.poll() is None:
                container.kill()
        self.server.close()


def messages(said: str) -> list[str]:
    """Of its log, whose every line must be an object as the platform reads it."""
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert all(set(line) == {"requestId", "message", "level"} for line in lines), said
    return [line["message"] for line in lines]


def wait_until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def left_over(home: pathlib.Path) -> list[str]:
    return sorted(str(path.relative_to(home)) for folder in ("downloads", "work.*") for path in home.glob(f"{folder}/*"))


def first_and_later(bench: Bench) -> str:
    said = bench.starts()
    assert "limner is installed" in messages(said)
    asked = len(bench.server.requests)
    assert bench.release.ran_with(said) == ["runpod"]
    assert left_over(bench.home) == []
    began = time.monotonic()
    again = bench.starts("generate", "a red circle", "--steps", "2")
    took = time.monotonic() - began
    assert messages(again) == [] and len(bench.server.requests) == asked, "the second start did more than start"
    assert bench.release.ran_with(again) == ["generate", "a red circle", "--steps", "2"]
    return f"a later start took {took * 1000:.0f} ms with its name space"


def environment(bench: Bench) -> str:
    seen = bench.release.environment(bench.starts())
    assert seen["LIMNER_MODELS"] == "/runpod-volume/models" and seen["LIMNER_RUNPOD_VOLUME"] == "/runpod-volume"
    assert seen["LIMNER_DATA_DIR"] == "/runpod-volume/limner/data"
    assert "LIMNER_RELEASE_URL" not in seen
    assert bench.release.environment(bench.starts(LIMNER_MODELS="/other"))["LIMNER_MODELS"] == "/other"
    serving = bench.release.environment(bench.starts("serve"))
    assert serving["LIMNER_DATA_DIR"] == "/var/lib/limner", "workers must not share a database"
    return "as documented"


def two_at_once(bench: Bench) -> str:
    bench.server.bytes_per_second = 500_000
    workers = [bench.start() for _ in range(3)]
    said = [worker.ended() for worker in workers]
    assert all(status == 0 and READY in text for status, text in said), said
    installers = [text for _, text in said if "limner is installed" in messages(text)]
    assert len(installers) == 1, f"{len(installers)} installed"
    fetched = [path for path, _ in bench.server.requests]
    assert len(fetched) == len(set(fetched)), f"fetched twice: {fetched}"
    return "one installed, three ran"


def no_locks(bench: Bench) -> str:
    """Where the volume knows no flock, a dead holder is told by its beats."""
    tools = bench.folder / "tools"
    tools.mkdir()
    (tools / "flock").write_text("#!/bin/sh\necho 'flock: 9: No locks available' >&2\nexit 71\n")
    (tools / "flock").chmod(0o755)
    bench.server.bytes_per_second = 100_000
    dead = bench.start(tools=tools)
    wait_until(lambda: list(bench.home.glob("downloads/*")))
    dead.kill()
    bench.server.bytes_per_second = None
    began = time.monotonic()
    workers = [bench.start(tools=tools) for _ in range(2)]
    said = [worker.ended() for worker in workers]
    took = time.monotonic() - began
    assert all(status == 0 for status, _ in said), said
    assert sum("limner is installed" in messages(text) for _, text in said) == 1, said
    assert took > 25, f"taken over after {took:.0f} s: the holder might have been alive"
    return f"taken over after {took:.0f} s"


def slow_holder(bench: Bench) -> str:
    """A holder that stands still loses its turn, and does no harm when it goes on."""
    bench.server.bytes_per_second = 100_000
    slow = bench.start()
    wait_until(lambda: list(bench.home.glob("downloads/*")))
    bench.release.pause(slow)
    bench.server.bytes_per_second = None
    said = bench.starts()
    assert "limner is installed" in messages(said)
    bench.release.go_on(slow)
    status, said = slow.ended()
    assert status == 1 and "another worker took over" in messages(said)[-1], said
    bench.release.check(bench.home)
    bench.starts()
    return "it ended; the other's installation is whole"


def kills(bench: Bench, count: int, chance: random.Random) -> str:
    """kill -9 before one of the commands that the script calls; then another worker starts."""
    tools = bench.release.make_counter(bench.folder / "tools")
    total = bench.release.calls(bench.starts, tools)
    points = sorted(chance.sample(range(1, total + 1), min(count, total)))
    for point in points:
        subprocess.run(["rm", "-rf", bench.home], check=True)
        bench.release.hold_at(tools, point)
        killed = bench.start(tools=tools)
        wait_until(lambda: (tools / "held").exists() or killed.process.poll() is not None)
        assert killed.process.poll() is None, f"call {point}: {killed.ended()[1]}"
        killed.kill()
        said = bench.starts()
        bench.release.check(bench.home)
        assert left_over(bench.home) == [], f"killed at call {point}, left {left_over(bench.home)}: {said}"
    return f"at calls {points} of {total}"


def broken_off(bench: Bench) -> str:
    """What was fetched before a kill, or before the connection broke, is not fetched again."""
    bench.server.bytes_per_second = 1_000_000
    killed = bench.start()
    archive, name = bench.release.archive, f"/{bench.release.archive.name}"
    wait_until(lambda: any(path.stat().st_size > 400_000 for path in bench.home.glob("downloads/*.1")))
    killed.kill()
    bench.server.bytes_per_second, bench.server.break_after = None, 200_000
    said = bench.starts()
    starts = [first for path, first in bench.server.requests if path == name]
    assert starts[0] == 0 and starts[1] > 400_000 and starts[2] >= starts[1] + 200_000, starts
    assert any("trying again" in message for message in messages(said))
    return f"requests began at {starts} of {archive.stat().st_size}"


def damaged_part(bench: Bench) -> str:
    """What an earlier worker left is wrong: it is fetched anew, once."""
    part = bench.home / "downloads" / f"{bench.release.sum}.1"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 1000)
    said = bench.starts()
    assert any("damaged; fetching it anew" in message for message in messages(said)), said
    return "fetched anew"


def wrong_hash(bench: Bench) -> str:
    bench.fails("and " + "0" * 64 + " is wanted", LIMNER_RELEASE_SHA256="0" * 64)
    assert left_over(bench.home) == [] or not list(bench.home.glob("releases/*/bin"))
    wheel = next(iter(bench.release.wheel_sums))
    (bench.release.folder / wheel).write_bytes(b"not a wheel")
    bench.fails("is wanted: it is another file, or damaged")
    bench.release.make_wheels()
    bench.starts()
    bench.fails("must be the sha256", LIMNER_RELEASE_SHA256="latest")
    return "said so; the right ones were installed afterwards"


def bad_places(bench: Bench) -> str:
    bench.fails("error: 404", LIMNER_RELEASE_URL=f"{bench.server.url}/other.tar.gz")
    bench.fails("lists no wheel with the sha256", PIP_INDEX_URL=f"{bench.server.url}/simple/none/of")
    bench.fails("does not say where", LIMNER_RELEASE_URL="")
    archive = bench.volume / bench.release.archive.name
    archive.write_bytes(bench.release.archive.read_bytes())
    bench.starts(LIMNER_RELEASE_URL=f"file:///runpod-volume/{archive.name}")
    return "each with its sentence; file:// works"


def no_network(bench: Bench) -> str:
    said = bench.fails("no network", LIMNER_RELEASE_URL="http://127.0.0.1:9/limner.tar.gz")
    assert sum("trying again" in message for message in messages(said)) == 5
    bench.starts()
    assert bench.starts(LIMNER_RELEASE_URL="http://127.0.0.1:9/limner.tar.gz"), "an installed one needs no network"
    return "said so"


def full_disk(bench: Bench) -> str:
    sizes = []
    for mebibytes in (1, 2, 3):
        with small_disk(mebibytes) as disk:
            said = bench.fails("is full or its quota is used up", volume=disk)
            sizes.append(f"{mebibytes} MiB: {messages(said)[-1].split('(')[1].split(')')[0].strip()}")
            assert not (disk / "limner/releases").exists() or not list(disk.glob("limner/releases/*/installed"))
            subprocess.run(["mount", "-o", "remount,size=50m", disk], check=True)
            bench.starts(volume=disk)
    return "; ".join(sizes)


def no_volume(bench: Bench) -> str:
    status, said = Container(None, {}).ended()
    assert status == 1 and "no volume is mounted at /runpod-volume" in messages(said)[-1], said
    status, said = Container(None, {"LIMNER_VOLUME": "/workspace"}).ended()
    assert status == 1 and "/workspace" in messages(said)[-1], said
    return "said so"


def versions(bench: Bench) -> str:
    """Side by side; one that is not used for a week and that nobody runs is removed."""
    bench.starts()
    second = SmallRelease(bench.release.folder, "2", 1, libtorch="other")
    bench.server.sums |= second.wheel_sums
    bench.starts(release=second)
    assert len(list(bench.home.glob("releases/*"))) == 2 and len(list(bench.home.glob("libtorch/*"))) == 2
    first = bench.release.id
    for stamp in bench.home.glob("*/*/installed"):
        if stamp.parent.name == first or stamp.parent.name == bench.release.libtorch_id:
            subprocess.run(["touch", "-d", "8 days ago", stamp], check=True)
    running = bench.start("stay")
    wait_until(lambda: bench.release.is_running(bench.volume))
    subprocess.run(["touch", "-d", "8 days ago", bench.home / "releases" / first / "installed"], check=True)
    bench.starts(release=second)
    assert (bench.home / "releases" / first).exists(), "removed under a running limner"
    running.process.kill()
    running.ended()
    said = bench.starts(release=second)
    assert [path.name for path in bench.home.glob("releases/*")] == [second.id], said
    assert [path.name for path in bench.home.glob("libtorch/*")] == [second.libtorch_id], said
    return "the old one stayed while it ran, and went afterwards"


def signals(bench: Bench) -> str:
    bench.server.bytes_per_second = 100_000
    installing = bench.start()
    wait_until(lambda: list(bench.home.glob("downloads/*")))
    bench.release.send("TERM", installing)
    status, said = installing.ended(20)
    assert status == 143, f"{status}: {said}"
    bench.server.bytes_per_second = None
    bench.starts()
    running = bench.start("stay")
    wait_until(lambda: bench.release.is_running(bench.volume))
    bench.release.send("TERM", running)
    status, said = running.ended(20)
    assert status == 0 and "told to stop" in said, f"{status}: {said}"
    return "while it installs, and limner's own afterwards"


CASES = [first_and_later, environment, two_at_once, kills, broken_off, damaged_part, wrong_hash, bad_places, no_network,
         full_disk, no_volume, versions, signals, no_locks, slow_holder]


def tell(case, folder: pathlib.Path, arguments) -> bool:
    bench, began = Bench(folder), time.monotonic()
    try:
        more = (arguments.kills, random.Random(arguments.seed)) if case is kills else ()
        print(f"{case.__name__}: {case(bench, *more)} ({time.monotonic() - began:.1f} s)", flush=True)
        return True
    except (AssertionError, OSError, subprocess.SubprocessError, ValueError):
        traceback.print_exc()
        print(f"{case.__name__}: FAILED (seed {arguments.seed})", flush=True)
        return False
    finally:
        bench.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", nargs="?", type=pathlib.Path)
    parser.add_argument("--only", choices=[case.__name__ for case in CASES] + ["real"])
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--json", type=pathlib.Path, help="where to write what the real release took")
    arguments = parser.parse_args()
    try:
        make()
        wanted = [case for case in CASES if arguments.only in (None, case.__name__)]
        passed = True
        for case in wanted:
            with tempfile.TemporaryDirectory(prefix="limner-launcher-") as folder:
                passed &= tell(case, pathlib.Path(folder), arguments)
        if arguments.program and arguments.only in (None, "real"):
            figures = measure(arguments.program)
            print("real:", json.dumps(figures, indent=2))
            if arguments.json:
                arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    except Unavailable as reason:
        print(f"skipped: {reason}")
        return SKIPPED
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
