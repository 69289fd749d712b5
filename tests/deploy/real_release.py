"""The release that script/package makes of a build, installed on a new volume and drawn with; sizes and times."""

import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

from package_server import PackageServer
from root_folder import CACHE, HERE, Container, Unavailable, make

sys.path.insert(0, str(HERE.parent / "runpod"))
from control_plane import ControlPlane  # noqa: E402
from plane_types import FINAL  # noqa: E402

ROOT = HERE.parent.parent
INDEX = "https://pypi.org/simple"
JOB = {"input": {"prompt": "a red circle", "seed": 7, "steps": 4}}


def file_sum(file: pathlib.Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fetch_wheel(project: str, wanted: str, folder: pathlib.Path) -> pathlib.Path:
    """Kept in .cache: half a gigabyte is fetched once."""
    try:
        page = urllib.request.urlopen(f"{INDEX}/{project}/", timeout=60).read().decode()
        found = re.search(rf'href="([^"#]+/([^"/#]+))#sha256={wanted}"', page)
        if not found:
            raise Unavailable(f"the package index has no {project} of the sum {wanted}")
        file = folder / found.group(2)
        urllib.request.urlretrieve(found.group(1), file)
    except OSError as error:
        raise Unavailable(f"{project} cannot be fetched: {error}") from error
    assert file_sum(file) == wanted, f"{file.name} is damaged"
    return file


def wheels() -> tuple[pathlib.Path, dict[str, str]]:
    """The folder of libtorch's wheels and their sums by name."""
    folder = CACHE / "wheels"
    folder.mkdir(exist_ok=True)
    listed = folder / "sums.json"
    sums = json.loads(listed.read_text()) if listed.exists() else {}
    for line in (ROOT / "script/libtorch.txt").read_text().splitlines():
        if found := re.fullmatch(r"([^#=]+)==\S+ --hash=sha256:(\w+)", line):
            if found.group(2) not in sums.values():
                sums[fetch_wheel(*found.groups(), folder).name] = found.group(2)
                listed.write_text(json.dumps(sums, indent=1) + "\n")
    return folder, sums


def size(folder: pathlib.Path) -> int:
    """Bytes of its files, links not followed."""
    return sum(os.lstat(os.path.join(place, name)).st_size
               for place, _, names in os.walk(folder) for name in names)


def compressed(folder: pathlib.Path) -> int:
    """As a layer of an image is sent."""
    packed = subprocess.run(f"tar --create --directory {folder} . | gzip -6 | wc -c", shell=True, check=True,
                            capture_output=True, text=True)
    return int(packed.stdout)


class Start:
    """One start of the container as a serverless worker; what is seen of it, in seconds since then."""

    def __init__(self, volume: pathlib.Path, variables: dict):
        with ControlPlane(hold=5) as plane:
            began = time.monotonic()
            container = Container(volume, variables | plane.environment("launched"))
            try:
                plane.wait(lambda: plane.seen("take") or container.process.poll() is not None, 300)
                self.ready = time.monotonic() - began
                assert plane.seen("take"), "it takes no jobs: " + container.kill()[-2000:]
                self.pictures = [self.picture(plane) for _ in range(2)]
            finally:
                if container.process.poll() is None:
                    container.kill()

    def picture(self, plane: ControlPlane) -> float:
        began = time.monotonic()
        job = plane.submit(JOB)
        assert plane.wait(lambda: plane.jobs[job].status in FINAL, 120), "no answer"
        assert plane.jobs[job].status == "COMPLETED", plane.jobs[job].error
        assert plane.jobs[job].output["images"][0].startswith("iVBOR"), "no PNG"
        return time.monotonic() - began

    def seconds(self) -> dict[str, float]:
        return {"to the first job asked for": round(self.ready, 2), "first picture": round(self.pictures[0], 2),
                "second picture": round(self.pictures[1], 2)}


def check_elsewhere(home: pathlib.Path, folder: pathlib.Path) -> None:
    """The installed tree draws in any folder, with nothing of the build's in its way."""
    moved = folder / "moved here"
    subprocess.run(["cp", "-a", home, moved], check=True)
    program = next(moved.glob("releases/*/bin/limner"))
    picture = folder / "picture.png"
    subprocess.run([program, "generate", "a red circle", "--steps", "2", "--output", picture], check=True, cwd=folder,
                   env={"PATH": "/usr/bin", "HOME": str(folder)}, capture_output=True)
    assert picture.read_bytes().startswith(b"\x89PNG")
    linked = subprocess.run(["ldd", program.parent.parent / "lib/limner/liblimner_engine.so"], check=True,
                            capture_output=True, text=True).stdout
    assert str(ROOT) not in linked and "not found" not in linked, linked


def entry_alone(volume: pathlib.Path, variables: dict) -> float:
    """A later start to the end of `limner version`; the best of five."""
    times = []
    for _ in range(5):
        began = time.monotonic()
        status, said = Container(volume, variables, ["version"]).ended()
        times.append(time.monotonic() - began)
        assert status == 0 and said.startswith("limner "), said
    return round(min(times), 3)


def measure(program: pathlib.Path) -> dict:
    folder, sums = wheels()
    with tempfile.TemporaryDirectory(prefix="limner-launcher-") as name:
        work = pathlib.Path(name)
        subprocess.run([ROOT / "script/package", "--build", program.parent, "--out", work], check=True,
                       capture_output=True, text=True)
        archive = next(work.glob("*.tar.gz"))
        shutil.copy(archive, folder)
        server = PackageServer(folder, sums)
        volume = work / "volume"
        volume.mkdir()
        variables = {"LIMNER_RELEASE_URL": f"{server.url}/{archive.name}", "LIMNER_RELEASE_SHA256": file_sum(archive),
                     "PIP_INDEX_URL": f"{server.url}/simple", "LIMNER_THREADS": "1"}
        try:
            first = Start(volume, variables)
            fetched = server.sent
            later = min((Start(volume, variables) for _ in range(3)), key=lambda start: start.ready)
            alone = entry_alone(volume, variables)
        finally:
            server.close()
            (folder / archive.name).unlink()
        check_elsewhere(volume / "limner", work)
        release = next((volume / "limner/releases").iterdir())
        root = make()
        return {
            "what": "deploy/launcher in a name space; release and wheels from a server on the same machine",
            "load average": [round(load, 1) for load in os.getloadavg()],
            "bytes": {"image": size(root), "image, compressed": compressed(root),
                      "release archive": archive.stat().st_size, "release on the volume": size(release),
                      "libtorch on the volume": size(volume / "limner/libtorch"), "fetched by a first start": fetched},
            "seconds": {"first start": first.seconds(), "later start": later.seconds(),
                        "later start to the end of `limner version`": alone},
        }
