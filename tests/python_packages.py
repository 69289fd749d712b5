"""Packages from PyPI for a test: a virtual environment under .cache, made the first time and again for another list."""

import os
import pathlib
import subprocess
import sys

CACHE = pathlib.Path(__file__).resolve().parent.parent / ".cache"
SKIPPED = 77


def use_packages(name: str, packages: list[str]) -> pathlib.Path:
    """Goes on as the same program in the environment `name`, whose folder it gives; exits with 77 (skipped) when the
    packages cannot be had."""
    environment = CACHE / name
    if pathlib.Path(sys.prefix) == environment:
        return environment
    stamp = environment / "packages.txt"
    if not stamp.exists() or stamp.read_text().split() != packages:
        made = subprocess.run([sys.executable, "-m", "venv", str(environment)], capture_output=True, text=True)
        if made.returncode == 0:
            made = subprocess.run([environment / "bin/pip", "install", "-q", *packages], capture_output=True, text=True)
        if made.returncode != 0:
            print("skipped: PyPI gives no packages: " + (made.stderr or made.stdout).strip()[-300:])
            sys.exit(SKIPPED)
        stamp.write_text("\n".join(packages))
    os.execv(environment / "bin/python", [str(environment / "bin/python"), *sys.argv])
