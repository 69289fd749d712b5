"""Compare limner with diffusers, tensor by tensor, on any Diffusers folder and any settings.

    script/parity MODEL --sampler dpmpp_2m --schedule karras --steps 8 --num-images 2
    script/parity MODEL --sweep             # every sampler, sizes, batches, guidance: one line each
    script/parity MODEL --psnr              # limner in bfloat16 against limner in float32

Exit code: 0 when every tensor is within the tolerance, 1 otherwise.
"""

import argparse
import hashlib
import json
import math
import pathlib
import subprocess
import sys
import tempfile

import numpy
from safetensors.numpy import load_file, save_file

from samplers import SAMPLERS, SCHEDULES, takes_schedule

ROOT = pathlib.Path(__file__).resolve().parents[2]
STEP_LIMIT = 1e-4  # a step "differs" beyond this
DEFAULTS = dict(prompt="a red circle above a blue square", negative_prompt="", steps=6, sampler="", schedule="default",
                guidance_scale=5.0, guidance_rescale=0.0, eta=0.0, width=0, height=0, num_images=1, seed=7)


# Not passed on where they are off, because some samplers refuse them.
OFF = {"negative_prompt": "", "sampler": "", "guidance_rescale": 0.0, "eta": 0.0}


class LimnerFailed(Exception):
    """`limner generate` ended with an error; the message is its own."""


def options(case):
    """The case as options of `limner generate`; all pictures in one batch."""
    words = ["--batch-size", str(case.get("num_images", 1))]
    for name, value in case.items():
        if name != "prompt" and value != OFF.get(name):
            words += ["--" + name.replace("_", "-"), str(value)]
    return words


def run_limner(binary, model, case, dtype="float32", extra=()):
    """The tensors that `limner generate --dump-tensors` wrote."""
    with tempfile.TemporaryDirectory(prefix="limner-parity-") as folder:
        dump = pathlib.Path(folder) / "dump.safetensors"
        command = [str(binary), "generate", case["prompt"], "--model", str(model), "--dtype", dtype,
                   "--dump-tensors", str(dump), "--output", f"{folder}/{{index}}.png", "--json"]
        done = subprocess.run([*command, *options(case), *extra], capture_output=True, text=True)
        if done.returncode != 0:
            raise LimnerFailed(f"exit code {done.returncode}: {(done.stderr or done.stdout).strip()}")
        return load_file(dump)


def relative_error(got, want):
    """max|a-b| / max|b|; infinite where the shapes differ or a value is not finite."""
    if got.shape != want.shape or not numpy.isfinite(got).all():
        return math.inf
    difference = numpy.abs(got.astype(float) - want.astype(float)).max()
    return float(difference / max(numpy.abs(want.astype(float)).max(), 1e-12))


def shown(picture):
    """The picture as it is shown: both sides may or may not have clamped it."""
    return picture.clip(-1, 1)


def errors_by_tensor(got, want):
    """Relative error of every tensor that diffusers has, in the order of a run; a missing one is infinitely wrong."""
    errors = {}
    for name in sorted(want, key=place_in_run):
        if name not in got:
            errors[name] = math.inf
        elif name == "image":
            errors[name] = relative_error(shown(got[name]), shown(want[name]))
        else:
            errors[name] = relative_error(got[name], want[name])
    return errors


def place_in_run(name):
    """Sorts names as a run makes them: text, schedule, then each step's prediction and latents, then the picture."""
    base, _, last = name.rpartition(".")
    if last.isdigit():
        return (2, int(last), base != "noise_pred", name)
    order = {"timesteps": 1, "sigmas": 1, "latents.initial": 1, "latents.final": 3, "image": 4}
    return (order.get(name, 0), 0, name == "image", name)


def first_difference(errors, limit=STEP_LIMIT):
    """The first tensor, in the order of a run, that is off by more than `limit`, or None."""
    return next((name for name, error in errors.items() if error > limit), None)


def groups(errors):
    """Worst error per family of tensors: noise_pred.000, .001, ... become one row."""
    rows = {}
    for name, error in errors.items():
        base, _, last = name.rpartition(".")
        row = base + ".*" if last.isdigit() else name
        if row not in rows or error > rows[row][0]:
            rows[row] = (error, name)
    return rows


def print_table(errors, got, want):
    print(f"{'tensor':32}{'worst relative error':>22}  at")
    for row, (error, name) in groups(errors).items():
        note = name if row != name else ""
        if name not in got:
            note = f"{name} is missing from limner's dump"
        elif got[name].shape != want[name].shape:
            note = f"{name}: shape {list(got[name].shape)}, diffusers has {list(want[name].shape)}"
        elif math.isinf(error):
            note = f"{name}: limner's has values that are not finite"
        print(f"{row:32}{error:22.2e}  {note}")
    for name in sorted(set(got) - set(want)):
        print(f"{name:32}{'only in limner':>22}")
    print("first that differs beyond %g: %s" % (STEP_LIMIT, first_difference(errors) or "none"))


def with_size(case, model):
    """The case with the model's own size where it names none."""
    unet = json.loads((model / "unet" / "config.json").read_text())
    vae = json.loads((model / "vae" / "config.json").read_text())
    side = unet["sample_size"] * 2 ** (len(vae["block_out_channels"]) - 1)
    return dict(case, width=case["width"] or side, height=case["height"] or side)


def psnr(got, want):
    """Decibels, for pictures in -1..1."""
    mean = numpy.square(shown(got).astype(float) - shown(want).astype(float)).mean()
    return math.inf if mean == 0 else 10 * math.log10(4 / mean)


class Reference:
    """diffusers' tensors of a case, kept in a folder (if one is given) so that a second look costs nothing."""

    def __init__(self, model, folder):
        self.model, self.folder, self.pipeline = model, folder, None
        digest = hashlib.sha256()
        for path in sorted(model.rglob("*")):
            if path.is_file():
                digest.update(f"{path.relative_to(model)} {path.stat().st_size} {path.stat().st_mtime_ns}".encode())
        self.identity = digest.hexdigest()

    def tensors(self, case):
        key = hashlib.sha256((self.identity + json.dumps(case, sort_keys=True)).encode()).hexdigest()[:24]
        kept = self.folder / f"{key}.safetensors" if self.folder else None
        if kept and kept.exists():
            return load_file(kept)
        import reference

        if self.pipeline is None:
            self.pipeline = reference.load(self.model)
        tensors = reference.capture(self.pipeline, case)
        if kept:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file(tensors, kept)
        return tensors


def sweep_cases():
    """Every sampler with every schedule it takes, then what else a request may choose."""
    for sampler in SAMPLERS:
        for schedule in SCHEDULES:
            if takes_schedule(sampler, schedule):
                yield dict(DEFAULTS, sampler=sampler, schedule=schedule)
    for sampler in ("", "euler", "euler_a", "ddim", "dpmpp_2m"):
        for num_images in (1, 2, 3):
            for width, height in ((72, 40), (136, 64), (64, 104)):
                yield dict(DEFAULTS, sampler=sampler, num_images=num_images, width=width, height=height, steps=4,
                           negative_prompt="a photo of the cat" if num_images == 2 else "")
    for guidance_scale, rescale in ((1.0, 0.0), (0.0, 0.0), (5.0, 0.7), (12.5, 0.0)):
        for sampler in ("euler", "dpmpp_2m_sde"):
            yield dict(DEFAULTS, sampler=sampler, guidance_scale=guidance_scale, guidance_rescale=rescale,
                       num_images=2)
    for eta in (0.5, 1.0):
        yield dict(DEFAULTS, sampler="ddim", eta=eta, num_images=2)
    yield dict(DEFAULTS, sampler="tcd", eta=0.5)
    for prompt in ("", "The CAT'S 2nd photo: naïve — 日本語 🙂!!", "a red circle on the blue square, " * 20):
        yield dict(DEFAULTS, prompt=prompt, steps=2)
    for steps in (1, 2, 25, 50):
        for sampler in ("euler", "dpmpp_2m", "pndm", "unipc", "heun", "ddim", "lcm"):
            yield dict(DEFAULTS, sampler=sampler, steps=steps)


def describe(case):
    return " ".join(f"{name}={value if len(str(value)) < 24 else str(value)[:20] + '...'!r}"
                    for name, value in case.items() if value != DEFAULTS[name]) or "defaults"


def compare_one(binary, reference, case, dtype="float32", extra=()):
    """(errors, limner's tensors, diffusers' tensors) of one case."""
    case = with_size(case, reference.model)
    want = reference.tensors(case)
    # diffusers cuts a long prompt at 77 positions.
    got = run_limner(binary, reference.model, case, dtype, ["--long-prompt", "truncate", *extra])
    return errors_by_tensor(got, want), got, want


def sweep(args, reference):
    failed = total = 0
    for case in sweep_cases():
        if args.only and args.only not in describe(case):
            continue
        total += 1
        try:
            errors, _, _ = compare_one(args.limner, reference, case, args.dtype, args.extra)
        except LimnerFailed as failure:
            failed += 1
            print(f"FAIL {describe(case)}: limner: {failure}", flush=True)
            continue
        except Exception as failure:  # diffusers itself refuses the combination
            print(f"skip {describe(case)}: diffusers: {type(failure).__name__}: {str(failure)[:100]}", flush=True)
            continue
        worst = max(errors, key=errors.get)
        ok = errors[worst] <= args.tolerance
        failed += not ok
        print(f"{'ok  ' if ok else 'FAIL'} {describe(case)}: worst {errors[worst]:.1e} at {worst}"
              + ("" if ok else f", first at {first_difference(errors, args.tolerance)}"), flush=True)
    print(f"{total} cases, {failed} failed")
    return failed == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path, metavar="MODEL", help="a Diffusers folder")
    choices = {"sampler": ["", *SAMPLERS], "schedule": list(SCHEDULES)}
    for name, value in DEFAULTS.items():
        parser.add_argument("--" + name.replace("_", "-"), type=type(value), default=value, choices=choices.get(name))
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("--limner", type=pathlib.Path, default=ROOT / "build" / "limner", help="the program to check")
    parser.add_argument("--psnr", action="store_true",
                        help="compare limner's bfloat16 picture with its float32 one; at least --least-psnr decibels")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32",
                        help="what limner computes in; diffusers always computes in float32")
    parser.add_argument("--least-psnr", type=float, default=35.0)
    parser.add_argument("--sweep", action="store_true", help="run the whole list of settings")
    parser.add_argument("--only", default="", help="with --sweep: only cases whose description contains this")
    parser.add_argument("--reference", type=pathlib.Path, help="keep diffusers' tensors in this folder, and reuse them")
    parser.add_argument("--json", action="store_true", help="print the errors as one JSON object")
    parser.add_argument("extra", nargs="*", help="after --: more options for limner generate")
    args = parser.parse_args()
    case = {name: getattr(args, name) for name in DEFAULTS}

    if args.psnr:
        case = {name: value for name, value in case.items() if value or name not in ("width", "height")}
        dtype = args.dtype if args.dtype != "float32" else "bfloat16"
        value = psnr(run_limner(args.limner, args.model, case, dtype, args.extra)["image"],
                     run_limner(args.limner, args.model, case, "float32", args.extra)["image"])
        print(f"{dtype} against float32: PSNR {value:.1f} dB (at least {args.least_psnr:g} wanted)")
        return 0 if value >= args.least_psnr else 1

    reference = Reference(args.model, args.reference)
    if args.sweep:
        return 0 if sweep(args, reference) else 1
    try:
        errors, got, want = compare_one(args.limner, reference, case, args.dtype, args.extra)
    except LimnerFailed as failure:
        print(f"limner: {failure}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(errors, indent=2))
    else:
        print_table(errors, got, want)
    return 0 if max(errors.values()) <= args.tolerance else 1


if __name__ == "__main__":
    sys.exit(main())
