"""The launcher image's file system without a container engine: Debian's base and the Containerfile's packages."""

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
LAUNCHER = HERE.parent.parent / "deploy" / "launcher"
CACHE = HERE.parent.parent / ".cache" / "launcher"
MIRROR = "http://deb.debian.org/debian"


class Unavailable(Exception):
    """Why there can be no such folder here."""


def packages() -> list[str]:
    """What the Containerfile installs."""
    text = (LAUNCHER / "Containerfile").read_text()
    return re.search(r"--no-install-recommends (.*) \\", text).group(1).split()


def debootstrap() -> tuple[list[str], dict]:
    if program := shutil.which("debootstrap"):
        return [program], {}
    fetched = CACHE / "debootstrap"
    if not fetched.exists():
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            done = subprocess.run(["apt-get", "download", "debootstrap"], cwd=folder, capture_output=True, text=True)
            found = list(pathlib.Path(folder).glob("*.deb"))
            if not found:
                raise Unavailable(f"no debootstrap here, and none to fetch: {done.stderr.strip()[-200:]}")
            subprocess.run(["dpkg-deb", "-x", found[0], fetched], check=True)
    return [str(fetched / "usr/sbin/debootstrap")], {"DEBOOTSTRAP_DIR": str(fetched / "usr/share/debootstrap")}


def make() -> pathlib.Path:
    """The folder, made the first time (a minute or two) and kept in .cache/."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0:
        raise Unavailable("only root may make name spaces and change the root folder here")
    CACHE.mkdir(parents=True, exist_ok=True)
    root, stamp = CACHE / "root", CACHE / "root.packages"
    if stamp.exists() and stamp.read_text().split() == packages():
        return root
    shutil.rmtree(root, ignore_errors=True)
    command, variables = debootstrap()
    command += ["--variant=minbase", "--include=" + ",".join(packages()), "bookworm", str(root), MIRROR]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)
    if done.returncode != 0:
        raise Unavailable(f"debootstrap: {(done.stdout + done.stderr).strip()[-300:]}")
    # As Debian's slim images are without them.
    for folder in ("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "var/cache/apt/archives",
                   "var/lib/apt/lists"):
        shutil.rmtree(root / folder, ignore_errors=True)
    (root / "runpod-volume").mkdir()
    (root / "entry.sh").touch()
    (root / "opt/tools").mkdir()
    stamp.write_text(" ".join(packages()))
    return root


@contextlib.contextmanager
def small_disk(mebibytes: int):
    """A folder on a disk of its own."""
    folder = tempfile.mkdtemp(prefix="limner-disk-")
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", folder], check=True)
    try:
        yield pathlib.Path(folder)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
        os.rmdir(folder)


class Container:
    """The entry script as process 1 of a container: its own mounts and processes, the host's network."""

    def __init__(self, volume: pathlib.Path | None, variables: dict, arguments=(), tools: pathlib.Path | None = None):
        root, setup = make(), ["mount --make-rprivate /", "cd $ROOT", "mount --bind . .", "cd $ROOT",
                               "mount --bind $ENTRY entry.sh", "mount -t proc proc proc", "mount --rbind /dev dev",
                               "mount -t tmpfs tmpfs tmp", "mount -t tmpfs tmpfs var/lib"]
        if volume:
            setup.append(f"mount --bind {volume} runpod-volume")
        if tools:
            setup.append(f"mount --bind {tools} opt/tools")
        path = ("/opt/tools:" if tools else "") + "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        setup.append("exec chroot . /usr/bin/env -i $WITH /entry.sh \"$@\"")
        given = {"PATH": path, "HOME": "/root"} | variables
        script = " && ".join(setup).replace("$ROOT", str(root)).replace("$ENTRY", str(LAUNCHER / "entry.sh"))
        script = script.replace("$WITH", " ".join(f"'{name}={value}'" for name, value in given.items()))
        # unshare ends with its child, and takes it along when it is killed.
        self.process = subprocess.Popen(["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script,
                                         "sh", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        stdin=subprocess.DEVNULL, text=True)

    def first_process(self) -> int:
        """Process 1 of the container, by its number outside."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def kill(self) -> str:
        self.process.kill()
        return self.ended()[1]

    def ended(self, seconds: float = 120) -> tuple[int, str]:
        """Its exit status, and what it said."""
        said, _ = self.process.communicate(timeout=seconds)
        return self.process.returncode, said
