"""A release as script/package lays it out, with a shell script for a program and a few bytes for libtorch."""

import hashlib
import os
import pathlib
import random
import signal
import subprocess
import tarfile
import zipfile

# Says how it was called; `stay` runs until it is told to stop.
PROGRAM = """#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
cat "$here/../libtorch/lib/libtorch_cpu.so" >/dev/null || exit 9
echo 'limner was here'
printf 'argument %s\\n' "$@"
env | sed -n 's/^LIMNER_/environment LIMNER_/p'
if [ "$1" = stay ]; then
  trap 'echo told to stop; exit 0' TERM
  touch /runpod-volume/running
  while :; do sleep 0.1; done
fi
"""

# In place of a command of the base: counts calls of all of them, and stands still at the one that is asked for.
COUNTER = """#!/bin/sh
{ flock 7; n=$(($(cat /opt/tools/count) + 1)); echo $n >/opt/tools/count; } 7>>/opt/tools/lock
if [ "$n" = "$(cat /opt/tools/hold)" ]; then
  : >/opt/tools/held
  sleep 1000
fi
exec /usr/bin/NAME "$@"
"""
COUNTED = ["mkdir", "mv", "rm", "cp", "ln", "touch", "tar", "unzip", "curl", "sha256sum", "sync", "sort"]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class SmallRelease:
    def __init__(self, folder: pathlib.Path, version: str, megabytes: int, libtorch: str = "one"):
        self.folder = folder
        folder.mkdir(exist_ok=True)
        chance = random.Random(libtorch)
        self.libraries = {"libtorch_cpu.so": chance.randbytes(megabytes * 1_000_000),
                          "libcudart.so.13": chance.randbytes(1000)}
        self.torch = f"torch-{2 if libtorch == 'one' else 3}.11.0-cp311-cp311-manylinux_2_28_x86_64.whl"
        self.runtime = f"nvidia_cuda_runtime-1{3 if libtorch == 'one' else 4}.0-py3-none-manylinux1_x86_64.whl"
        self.wheel_sums: dict[str, str] = {}
        self.make_wheels()
        self.make_archive(version, megabytes)

    def make_wheels(self) -> None:
        members = {self.torch: {"torch/lib/libtorch_cpu.so": self.libraries["libtorch_cpu.so"],
                                "torch/lib/libtorch_python.so": b"not wanted", "torch/__init__.py": b""},
                   self.runtime: {"nvidia/cu13/lib/libcudart.so.13": self.libraries["libcudart.so.13"]}}
        for wheel, files in members.items():
            with zipfile.ZipFile(self.folder / wheel, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, data in files.items():
                    archive.writestr(zipfile.ZipInfo(name), data)
            self.wheel_sums[wheel] = sha256((self.folder / wheel).read_bytes())

    def make_archive(self, version: str, megabytes: int) -> None:
        files = "".join(f"{sha256(data)}  {name}\n" for name, data in self.libraries.items()).encode()
        wheels = f"torch 2.11.0 {self.wheel_sums[self.torch]}\nnvidia-cuda-runtime 13.0 {self.wheel_sums[self.runtime]}\n"
        self.content = {"bin/limner": PROGRAM.encode(), "share/version": version.encode(),
                        "lib/limner/liblimner_engine.so": random.Random(version).randbytes(megabytes * 1_000_000),
                        "share/limner/libtorch/files.sha256": files,
                        "share/limner/libtorch/wheels.txt": wheels.encode()}
        manifest = "".join(f"{sha256(data)}  {name}\n" for name, data in sorted(self.content.items()))
        self.archive = self.folder / f"limner-{version}.tar.gz"
        tree = self.folder / f"limner-{version}"
        for name, data in (self.content | {"manifest.sha256": manifest.encode()}).items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes(data)
        (tree / "bin/limner").chmod(0o755)
        with tarfile.open(self.archive, "w:gz") as archive:
            archive.add(tree, tree.name)
        self.sum = sha256(self.archive.read_bytes())
        self.id, self.libtorch_id = self.sum[:16], sha256(files)[:16]

    def check(self, home: pathlib.Path) -> None:
        """The installation is whole, and its libtorch too."""
        release = home / "releases" / self.id
        for name, data in self.content.items():
            assert (release / name).read_bytes() == data, name
        for name, data in self.libraries.items():
            assert (release / "libtorch" / "lib" / name).read_bytes() == data, name
        assert not (release / "libtorch/lib/libtorch_python.so").exists()

    # -- what its program said --

    def ran_with(self, said: str) -> list[str]:
        return [line.removeprefix("argument ") for line in said.splitlines() if line.startswith("argument ")]

    def environment(self, said: str) -> dict[str, str]:
        lines = [line.removeprefix("environment ") for line in said.splitlines() if line.startswith("environment ")]
        return dict(line.split("=", 1) for line in lines)

    def is_running(self, volume: pathlib.Path) -> bool:
        return (volume / "running").exists()

    # -- stopping it --

    def send(self, name: str, container) -> None:
        os.kill(container.first_process(), getattr(signal, f"SIG{name}"))

    def tree(self, container) -> list[int]:
        """All processes of the container, the first one first."""
        found, waiting = [], [container.first_process()]
        while waiting:
            process = waiting.pop(0)
            found.append(process)
            waiting += map(int, pathlib.Path(f"/proc/{process}/task/{process}/children").read_text().split())
        return found

    def pause(self, container) -> None:
        for process in self.tree(container):
            os.kill(process, signal.SIGSTOP)

    def go_on(self, container) -> None:
        for process in self.tree(container):
            os.kill(process, signal.SIGCONT)

    # -- standing still at one call --

    def make_counter(self, tools: pathlib.Path) -> pathlib.Path:
        tools.mkdir()
        for name in COUNTED:
            (tools / name).write_text(COUNTER.replace("NAME", name))
            (tools / name).chmod(0o755)
        return tools

    def hold_at(self, tools: pathlib.Path, point: int) -> None:
        (tools / "held").unlink(missing_ok=True)
        (tools / "count").write_text("0\n")
        (tools / "hold").write_text(f"{point}\n")

    def calls(self, starts, tools: pathlib.Path) -> int:
        """How many there are in a first start."""
        self.hold_at(tools, 0)
        starts(tools=tools)
        return int((tools / "count").read_text())
