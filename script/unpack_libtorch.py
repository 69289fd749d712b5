"""Unpacks the parts of the libtorch wheels that limner links: unpack_libtorch.py WHEELS TARGET yes|no (CUDA)."""

import pathlib
import stat
import sys
import zipfile

HEADERS = ("torch/include/ATen/", "torch/include/c10/", "torch/include/torch/", "torch/include/caffe2/")
CPU_LIBRARIES = {"libtorch_cpu.so", "libc10.so", "libgomp.so.1", "libcudart.so.13", "libcupti.so.13"}


def target_of(name: str, cuda: bool) -> str | None:
    """Where a wheel's member goes, relative to the libtorch folder; None when it is not needed."""
    file = name.rsplit("/", 1)[-1]
    if name.startswith(HEADERS):
        return name.removeprefix("torch/")
    if file in CPU_LIBRARIES:
        return f"lib/{file}"
    if not cuda:
        return None
    if name.startswith("torch/lib/") and ".so" in file and "python" not in file:
        return f"lib/{file}"
    if name.startswith("nvidia/cu13/lib/") and ".so" in file:
        return f"lib/{file}"
    if name.startswith("nvidia/cu13/"):
        return name.replace("nvidia/cu13/", "cuda/", 1)
    if name.startswith("nvidia/") and "/lib/" in name and ".so" in file:
        return f"lib/{file}"
    return None


def main(wheels: pathlib.Path, target: pathlib.Path, cuda: bool) -> None:
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                place = target_of(member.filename, cuda)
                if place is None or member.is_dir():
                    continue
                path = target / place
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, open(path, "wb") as sink:
                    while block := source.read(1 << 22):
                        sink.write(block)
                if "/bin/" in place or ".so" in place:
                    path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    if not (target / "lib/libtorch_cpu.so").exists():
        sys.exit("unpack_libtorch: the wheels hold no lib/libtorch_cpu.so")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3] == "yes")
