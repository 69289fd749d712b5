"""Write tests/parity/fixtures/pipelines: tiny random models, and what diffusers draws with them.

    pipelines/<model>/model/            a Diffusers folder, float16
    pipelines/<model>/<case>.json       {"arguments": [...]} for `limner generate`
    pipelines/<model>/<case>.safetensors  the expected tensors: float32, but pictures in float16, for size

pipeline_test.cpp compares limner with them, so that CI needs no Python.
"""

import json
import pathlib
import shutil

import numpy
import torch
from safetensors.numpy import save_file

import reference
from compare import DEFAULTS, ROOT, options
from make_model import make_model

FOLDER = ROOT / "tests" / "parity" / "fixtures" / "pipelines"
SMALL = dict(DEFAULTS, width=32, height=32, steps=4)
NEGATIVE = "a photo of the cat"
UNUSUAL = "The CAT'S 2nd photo: na\u00efve \u2014 \u65e5\u672c\u8a9e \U0001f642!! "
# What each model is asked; a case names only what differs from SMALL.
CASES = {
    "micro-sd1": {
        "own_sampler": {},
        "ddim_eta": dict(sampler="ddim", eta=0.6),
        "ddim_batch": dict(sampler="ddim", num_images=2, negative_prompt=NEGATIVE),
        "ddpm": dict(sampler="ddpm"),
        "dpmpp_2m_karras": dict(sampler="dpmpp_2m", schedule="karras", width=40, height=24),
        "dpmpp_2m_sde": dict(sampler="dpmpp_2m_sde", num_images=2),
        "dpmpp_2s_exponential": dict(sampler="dpmpp_2s", schedule="exponential"),
        "euler_a_batch": dict(sampler="euler_a", num_images=3, width=24, height=40),
        "heun": dict(sampler="heun"),
        "kdpm2_a": dict(sampler="kdpm2_a"),
        "lcm": dict(sampler="lcm", num_images=2, guidance_scale=1.0),
        "lms_beta": dict(sampler="lms", schedule="beta"),
        "rescale": dict(sampler="euler", guidance_rescale=0.7, negative_prompt=NEGATIVE),
        "long_prompt": dict(prompt=UNUSUAL * 9, steps=2),
    },
    "micro-sd2": {
        "own_sampler": {},
        "deis": dict(sampler="deis", width=40, height=24),
        "dpmpp_2m_lu": dict(sampler="dpmpp_2m", schedule="lu"),
        "euler_karras_batch": dict(sampler="euler", schedule="karras", num_images=3, negative_prompt=NEGATIVE),
        "euler_a": dict(sampler="euler_a", num_images=2, guidance_scale=1.0),
        "kdpm2": dict(sampler="kdpm2"),
        "pndm": dict(sampler="pndm", steps=5),
        "rescale": dict(guidance_rescale=0.7, num_images=2),
        "tcd": dict(sampler="tcd", guidance_scale=0.0),
        "unipc": dict(sampler="unipc", width=24, height=40),
    },
    "micro-sdxl": {
        "own_sampler": {},
        "batch_negative": dict(num_images=3, negative_prompt=NEGATIVE),
        "ddim": dict(sampler="ddim", num_images=2),
        "dpmpp_2m_karras": dict(sampler="dpmpp_2m", schedule="karras", steps=6),
        "euler_a_odd": dict(sampler="euler_a", num_images=2, width=40, height=24),
        "lcm_unguided": dict(sampler="lcm", guidance_scale=1.0, steps=3),
        "rescale": dict(guidance_rescale=0.7, negative_prompt=NEGATIVE, width=24, height=40),
        "unipc_karras": dict(sampler="unipc", schedule="karras"),
    },
}
# Enough to tell which stage is wrong; the text is kept by the cases that are about it.
KEPT = ["timesteps", "sigmas", "latents.initial", "noise_pred.000", "latents.000", "latents.final", "image"]
TEXT = ["prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds"]
TEXT_CASES = {"own_sampler", "long_prompt"}


def arguments(case):
    return [case["prompt"], "--long-prompt", "truncate", "--dtype", "float32", *options(case)]


def expected(tensors, with_text):
    kept = {name: tensors[name] for name in KEPT + (TEXT if with_text else []) if name in tensors}
    kept["image"] = kept["image"].clip(-1, 1).astype(numpy.float16)
    return kept


def write_model(name, seed):
    folder = FOLDER / name / "model"
    make_model(name, folder, seed=seed, dtype=torch.float16)
    return folder


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    for seed, (model, cases) in enumerate(CASES.items()):
        pipeline = reference.load(write_model(model, seed))
        for name, changes in cases.items():
            case = dict(SMALL, **changes)
            path = FOLDER / model / name
            save_file(expected(reference.capture(pipeline, case), name in TEXT_CASES), f"{path}.safetensors")
            path.with_suffix(".json").write_text(json.dumps({"arguments": arguments(case)}, indent=1) + "\n")
    size = sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file())
    print(f"{FOLDER}: {sum(map(len, CASES.values()))} cases, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
