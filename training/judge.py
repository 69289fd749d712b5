"""Judge pictures by their pixels: shapes, colours, sizes, relation, background, nothing else.

The judge knows the listed colours and ideal shapes of its own; it shares no drawing code with the
renderer. A picture passes only if everything its caption says is right.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile
from collections import Counter
from functools import lru_cache

import numpy as np
from PIL import Image
from scipy import ndimage

from scenes import COLOURS, held_out_prompts, rgb

TEMPLATE = 64  # side of the shape templates
LEAST_IOU = 0.80
LEAST_AREA = 0.004  # of the picture, for a region to count
SIZE_LIMITS = {"small": (0.18, 0.41), "medium": (0.41, 0.60), "large": (0.60, 0.95)}
NAMES = list(COLOURS)


# --- colours ---


def lab(srgb):
    """CIELAB of sRGB bytes."""
    c = np.asarray(srgb, dtype=np.float64) / 255
    c = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    xyz = c @ np.array([[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192],
                        [0.1805, 0.0722, 0.9505]]) / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


PALETTE = lab([rgb(name) for name in NAMES])


def nearest_colours(picture):
    """Each pixel's nearest listed colour, as an index."""
    distance = ((lab(picture)[..., None, :] - PALETTE) ** 2).sum(-1)
    return distance.argmin(-1)


# --- shapes ---


@lru_cache(maxsize=None)
def templates():
    """Ideal masks of all shapes, each filling its bounding box."""
    y, x = (np.mgrid[:TEMPLATE, :TEMPLATE] + 0.5) / TEMPLATE * 2 - 1
    radius = np.hypot(x, y)
    up, wide = 1 - (y + 1) / 2, np.abs(x)
    angle = np.arctan2(x, -(y - 0.1))
    wedge = np.abs((angle + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
    inner, outer = 0.47, 1.08
    edge = outer * inner * np.sin(np.pi / 5) / (
        outer * np.sin(wedge) + inner * np.sin(np.pi / 5 - wedge))
    hx, hy = 1.15 * x, -1.2 * y + 0.13
    return {
        "circle": radius <= 1,
        "square": np.ones_like(x, dtype=bool),
        "triangle": wide <= 1 - up,
        "star": np.hypot(x / 0.98, y - 0.1) <= edge,
        "heart": (hx ** 2 + hy ** 2 - 1) ** 3 <= hx ** 2 * hy ** 3,
        "cross": (wide <= 0.34) | (np.abs(y) <= 0.34),
        "ring": (radius <= 1) & (radius >= 0.54),
        "diamond": wide + np.abs(y) <= 1,
    }


def classify_shape(mask):
    """The best-fitting shape of a mask cut to its bounding box, and the fit (IoU)."""
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    scaled = np.asarray(image.resize((TEMPLATE, TEMPLATE), Image.Resampling.BILINEAR)) > 127
    fits = {
        name: (scaled & template).sum() / (scaled | template).sum()
        for name, template in templates().items()
    }
    best = max(fits, key=fits.get)
    return best, fits[best]


def find_things(labels, background):
    """The connected one-coloured regions that are not background, as dictionaries."""
    things = []
    for colour in np.unique(labels):
        if colour == background:
            continue
        core = ndimage.binary_opening(labels == colour, np.ones((3, 3)))
        regions, _ = ndimage.label(labels == colour)
        for i, box in enumerate(ndimage.find_objects(regions)):
            mask = regions[box] == i + 1
            if (mask & core[box]).sum() < LEAST_AREA * labels.size:
                continue  # mixed colours along an edge, a pixel or two wide
            shape, fit = classify_shape(mask)
            y, x = ndimage.center_of_mass(regions == i + 1)
            things.append({
                "colour": NAMES[colour], "shape": shape, "fit": fit, "x": x, "y": y,
                "extent": max(mask.shape) / labels.shape[0],
            })
    return things


# --- verdict ---


def judge(picture, scene):
    """The failures of a picture of `scene`, as a list of kinds; an empty list is a pass."""
    labels = nearest_colours(picture)
    border = np.concatenate([labels[:2].ravel(), labels[-2:].ravel(),
                             labels[:, :2].ravel(), labels[:, -2:].ravel()])
    counts = np.bincount(border, minlength=len(NAMES))
    background = counts.argmax()
    failures = []
    if NAMES[background] != scene.background or counts[background] < 0.95 * border.size:
        failures.append("background")
    expected = [thing for thing in (scene.a, scene.b) if thing]
    things = find_things(labels, background)
    found = Counter(thing["colour"] for thing in things)
    wanted = Counter(thing.colour for thing in expected)
    if wanted - found:
        failures.append("colour missing")
    if found - wanted:
        failures.append("extra region")
    if failures:
        return failures
    axis = "y" if scene.layout == "vertical" else "x"
    things.sort(key=lambda thing: thing[axis])
    names = [(thing["colour"], thing["shape"]) for thing in things]
    truth = [(thing.colour, thing.shape) for thing in expected]
    if sorted(names) != sorted(truth) or min(thing["fit"] for thing in things) < LEAST_IOU:
        failures.append("shape")
    if scene.b is None:
        low, high = SIZE_LIMITS[scene.size]
        if not low <= things[0]["extent"] < high:
            failures.append("size")
    else:
        dx, dy = (abs(things[1][k] - things[0][k]) for k in "xy")
        along, across = (dy, dx) if axis == "y" else (dx, dy)
        if [n[0] for n in names] != [t[0] for t in truth] or along <= across:
            failures.append("relation")
        elif sorted(names) == sorted(truth) and names != truth:
            failures.append("relation")
    return failures


def summarise(verdicts):
    """Count passes and kinds of failure of (scene, failures) pairs."""
    passed = sum(not failures for _, failures in verdicts)
    kinds = Counter(kind for _, failures in verdicts for kind in failures)
    return {"prompts": len(verdicts), "passed": passed,
            "percent": round(100 * passed / len(verdicts), 1), "failures": dict(kinds)}


# --- engines ---


def draw_with_diffusers(model, prompts, steps, guidance, seed):
    """Pictures by diffusers' own pipeline, in float32."""
    import torch
    from diffusers import StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline.from_pretrained(model, add_watermarker=False)
    pipeline.to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    for start in range(0, len(prompts), 16):
        generator = torch.Generator().manual_seed(seed + start)
        yield from pipeline(
            prompts[start:start + 16], num_inference_steps=steps, guidance_scale=guidance,
            generator=generator, output_type="np", height=128, width=128,
        ).images


def draw_with_limner(binary, model, prompts, steps, guidance, seed):
    """Pictures by `limner generate`, one process each."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "picture.png"
        for i, prompt in enumerate(prompts):
            subprocess.run(
                [binary, "generate", prompt, "--model", model, "--steps", str(steps),
                 "--guidance-scale", str(guidance), "--seed", str(seed + i), "--output", str(path)],
                check=True, capture_output=True)
            yield np.asarray(Image.open(path).convert("RGB")) / 255


def sheet(pictures, columns=10):
    """Pictures side by side in rows, as one image."""
    blank = np.full_like(pictures[0], 255)
    padded = pictures + [blank] * (-len(pictures) % columns)
    rows = [np.concatenate(padded[i:i + columns], 1) for i in range(0, len(padded), columns)]
    return Image.fromarray(np.concatenate(rows))


def judge_kind(args, kind, pair):
    """Draw and judge the held-out prompts of one kind; prints failures, returns the scores."""
    cases = held_out_prompts(args.count, pair, args.seed + pair)
    prompts = [prompt for _, prompt in cases]
    settings = (prompts, args.steps, args.guidance, args.seed)
    if args.engine == "limner":
        drawn = draw_with_limner(args.limner, args.model, *settings)
    else:
        drawn = draw_with_diffusers(args.model, *settings)
    pictures = [(image * 255).round().astype(np.uint8) for image in drawn]
    verdicts = [(scene, judge(image, scene)) for image, (scene, _) in zip(pictures, cases)]
    scores = summarise(verdicts)
    print(f"{kind}: {scores['percent']} % of {args.count}", scores["failures"])
    for (_, failures), prompt in zip(verdicts, prompts):
        if failures:
            print(f"  {prompt}: {', '.join(failures)}")
    if args.sheet:
        sheet(pictures).save(f"{args.sheet}-{kind.replace(' ', '-')}.png")
    return scores


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="the model's folder")
    parser.add_argument("--engine", choices=["diffusers", "limner"], default="diffusers")
    parser.add_argument("--limner", default="build/limner", help="the program, for that engine")
    parser.add_argument("--count", type=int, default=200, help="held-out prompts of each kind")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--report", type=pathlib.Path, help="write the scores as JSON")
    parser.add_argument("--sheet", help="write all pictures side by side, one file for each kind")
    args = parser.parse_args()
    report = {"engine": args.engine, "steps": args.steps, "guidance_scale": args.guidance}
    for kind, pair in (("one shape", False), ("two shapes", True)):
        report[kind] = judge_kind(args, kind, pair)
    if args.report:
        args.report.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
