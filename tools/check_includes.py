"""Who may include whom: reads the direct includes under src/ and apps/ and fails on anything the table does not allow.

The table is ARCHITECTURE.md's "Rooms". A room may always include itself, the standard library and outside libraries;
libtorch is for the rooms in TORCH alone.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

ALLOWED = {
    "base": set(),
    "contract": {"base"},
    "image": {"base"},
    "platform": {"base"},
    "prompt": {"base", "contract"},
    "templates": {"base", "contract", "platform"},
    "delivery": {"base", "contract", "image", "platform"},
    "engine/weights": {"base"},
    "engine/kernels": {"base"},
    "engine/nn": {"base", "engine/weights", "engine/kernels"},
    "engine/models": {"base", "engine/weights", "engine/kernels", "engine/nn"},
    "engine/samplers": {"base", "engine/weights"},
    "engine/lora": {"base", "engine/weights", "engine/nn"},
    "engine/pipelines": {"base", "contract", "image", "prompt", "engine", "engine/weights", "engine/kernels",
                         "engine/nn", "engine/models", "engine/samplers", "engine/lora"},
    "engine": {"base", "contract", "image", "prompt", "engine/weights", "engine/kernels", "engine/nn",
               "engine/models", "engine/samplers", "engine/lora", "engine/pipelines"},
    "queue": {"base", "contract", "platform"},
    "queue/simulation": {"base", "contract", "queue"},
    "worker": {"base", "contract", "image", "platform", "prompt", "engine", "engine/weights", "engine/lora", "queue",
               "delivery"},
    "runpod": {"base", "contract", "image", "platform", "prompt", "templates", "delivery", "engine", "worker"},
    "runpod/volume": {"base", "platform", "delivery", "engine/weights", "engine/lora"},
    "gateway/http": {"base", "contract", "platform", "delivery"},
    "gateway": {"base", "contract", "image", "platform", "prompt", "templates", "queue", "delivery", "gateway/http"},
    "cli": {"base", "contract", "image", "platform", "queue", "queue/simulation", "engine/weights", "engine/lora",
            "delivery", "runpod/volume"},
    "cli/engine_module": {"base", "contract", "image", "platform", "prompt", "cli", "queue", "delivery", "worker",
                          "runpod", "gateway", "gateway/http", "engine", "engine/weights",
                          "engine/kernels", "engine/samplers", "engine/lora", "engine/pipelines"},
    "apps/limner": {"cli"},
}
TORCH = {"engine", "engine/kernels", "engine/nn", "engine/models", "engine/samplers", "engine/lora", "engine/pipelines",
         "cli/engine_module"}
INCLUDE = re.compile(r'^\s*#\s*include\s+(["<])([^">]+)[">]', re.MULTILINE)


def room_of(path: str) -> str | None:
    """The room a path such as engine/nn/layers.h lies in: the longest folder the table names."""
    folder = pathlib.PurePosixPath(path).parent
    while str(folder) != ".":
        if str(folder) in ALLOWED:
            return str(folder)
        folder = folder.parent
    return None


def violations(file: pathlib.Path) -> list[str]:
    place = file.relative_to(ROOT)
    inside = str(place.relative_to("src")) if place.parts[0] == "src" else str(place)
    room = room_of(inside)
    if room is None:
        return [f"{place}: lies in no room of tools/check_includes.py"]
    found = []
    for quote, name in INCLUDE.findall(file.read_text()):
        if name.startswith(("ATen/", "c10/", "torch/")) and room not in TORCH:
            found.append(f"{place}: includes <{name}>, but {room} may not know libtorch")
        if quote != '"' or (name.startswith("parity/") and file.stem.endswith("_test")):
            continue
        other = room_of(name)
        if other is None:
            found.append(f'{place}: includes "{name}", which lies in no room (write the path from src/)')
        elif other != room and other not in ALLOWED[room]:
            found.append(f'{place}: includes "{name}", but {room} may not use {other}')
    return found


def main() -> None:
    files = [f for folder in ("src", "apps") for f in sorted((ROOT / folder).rglob("*"))
             if f.suffix in {".h", ".cpp", ".cu", ".cuh"}]
    found = [violation for file in files for violation in violations(file)]
    for violation in found:
        print(violation, file=sys.stderr)
    if found:
        sys.exit(1)


if __name__ == "__main__":
    main()
