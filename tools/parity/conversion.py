"""What `limner model convert` writes, loaded and drawn with by diffusers.

    conversion.py [--limner build/limner]

For each family a small random model of the true block structure: as diffusers draws it, as diffusers draws it from
limner's single file (from_single_file) and from limner's half-precision folder (variant fp16), and as limner draws it
from the single file. One line each: max|a-b| / max|b| over the picture. Exit code 0 when the fp16 folder is exact and the
others are within 1e-4.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

import diffusers
import torch

import shapes
from compare import DEFAULTS, ROOT, relative_error, run_limner, shown
from make_model import make_model
from reference import capture, load
from single_file_fixtures import SHAPES

CASE = dict(DEFAULTS, steps=3, width=64, height=64)
TOLERANCE = 1e-4


def from_single_file(file, folder):
    """diffusers' own reader of original checkpoints; the folder tells it the sizes, which it knows for full models only."""
    name = diffusers.DiffusionPipeline.load_config(folder)["_class_name"]
    pipeline = getattr(diffusers, name).from_single_file(file, config=str(folder), local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def rounded(pipeline):
    """The pipeline with weights that went through float16."""
    for module in pipeline.components.values():
        if isinstance(module, torch.nn.Module):
            module.to(torch.float16).to(torch.float32)
    return pipeline


def errors(limner, shape, work):
    folder, file, half = work / "model", work / "model.safetensors", work / "half"
    shapes.SHAPES[shape] = SHAPES[shape]
    make_model(shape, folder, seed=1)
    convert = [limner, "model", "convert"]
    subprocess.run([*convert, folder, file], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*convert, file, half, "--dtype", "float16", "--variant", "fp16"], check=True,
                   stdout=subprocess.DEVNULL)
    wanted = shown(capture(load(folder), CASE)["image"])
    wanted_half = shown(capture(rounded(load(folder)), CASE)["image"])
    pipeline = diffusers.DiffusionPipeline.from_pretrained(half, variant="fp16", dtype=torch.float32,
                                                           local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return {"diffusers, single file": relative_error(
                shown(capture(from_single_file(file, folder), CASE)["image"]), wanted),
            "diffusers, fp16 folder": relative_error(shown(capture(pipeline, CASE)["image"]), wanted_half),
            "limner, single file": relative_error(shown(run_limner(limner, file, CASE)["image"]), wanted)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limner", type=pathlib.Path, default=ROOT / "build" / "limner")
    limner = parser.parse_args().limner
    good = True
    for shape in SHAPES:
        with tempfile.TemporaryDirectory(prefix="limner-conversion-") as work:
            for name, error in errors(limner, shape, pathlib.Path(work)).items():
                good = good and error <= (0 if name == "diffusers, fp16 folder" else TOLERANCE)
                print(f"{shape:<6}{name:<26}{error:.1e}", flush=True)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
