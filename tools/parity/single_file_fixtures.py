"""Which tensor of a single-file checkpoint is which of a diffusers folder, as diffusers' own scripts write them.

    single_file_fixtures.py --scripts DIFFUSERS_CHECKOUT/scripts --output tests/parity/fixtures/single_file

Models with the true block structure and small widths are made and converted by
convert_diffusers_to_original_stable_diffusion.py and convert_diffusers_to_original_sdxl.py; tensors are then matched by
their values. One pair is kept for each pair of name prefixes, which is what tells a table right from wrong.
"""

import argparse
import hashlib
import pathlib
import re
import subprocess
import sys
import tempfile

import shapes
from make_model import make_model
from safetensors.torch import load_file, save_file
from shapes import DDIM_V, EULER, PNDM, clip, text_time, unet, vae

VAE = dict(channels=(32, 32, 64, 64), groups=32, layers=2)
SHAPES = {
    "sd1": dict(pipeline="StableDiffusionPipeline", scheduler=PNDM, vae=vae(**VAE), text_encoder=clip(64, 2, 1),
                unet=unet("cccd", (32, 64, 64, 96), 64, layers_per_block=2, attention_head_dim=8)),
    # The script knows SD 2 by a text encoder of 23 layers.
    "sd2": dict(pipeline="StableDiffusionPipeline", scheduler=DDIM_V, vae=vae(**VAE),
                text_encoder=clip(64, 23, 1, act="gelu", mlp=1),
                unet=unet("cccd", (64, 64, 128, 128), 64, layers_per_block=2, attention_head_dim=[1, 1, 2, 2],
                          use_linear_projection=True)),
    "sdxl": dict(pipeline="StableDiffusionXLPipeline", scheduler=EULER, vae=vae(**VAE), text_encoder=clip(64, 2, 1),
                 text_encoder_2=clip(128, 2, 2, act="gelu", projection=128),
                 unet=unet("dcc", (64, 128, 128), 192, layers_per_block=2, attention_head_dim=[1, 2, 2],
                           transformer_layers_per_block=[1, 2, 3], use_linear_projection=True, **text_time(128, 8))),
}


def digest(tensor):
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def networks(folder):
    """Every tensor of the folder by digest of its values."""
    found = {}
    for file in sorted(folder.glob("*/*.safetensors")):
        for name, tensor in load_file(file).items():
            found[digest(tensor)] = f"{file.parent.name}/{name}"
    return found


def with_old_names(folder):
    """Old names in text_encoder, which is what the scripts read."""
    file = folder / "text_encoder" / "model.safetensors"
    tensors = {name if name.startswith("text_model.") else "text_model." + name: tensor
               for name, tensor in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})


def parts(name, tensor):
    """The pieces of a single file's tensor as diffusers keeps them."""
    if name.endswith("in_proj_weight") or name.endswith("in_proj_bias"):
        return list(tensor.chunk(3))
    return [tensor, tensor.T] if tensor.dim() == 2 else [tensor]


def prefixes(ldm, diffusers):
    """Both names without their common ending."""
    left, right = ldm.split("."), diffusers.split("/")[1].split(".")
    while left and right and left[-1] == right[-1]:
        left.pop()
        right.pop()
    return ".".join(left), diffusers.split("/")[0] + "/" + ".".join(right)


def pairs(scripts, shape):
    with tempfile.TemporaryDirectory() as work:
        folder, file = pathlib.Path(work) / "model", pathlib.Path(work) / "model.safetensors"
        shapes.SHAPES[shape] = SHAPES[shape]
        make_model(shape, folder, seed=1)
        with_old_names(folder)
        script = "sdxl" if shape == "sdxl" else "stable_diffusion"
        subprocess.run([sys.executable, scripts / f"convert_diffusers_to_original_{script}.py", "--model_path", folder,
                        "--checkpoint_path", file, "--use_safetensors"], check=True, stdout=subprocess.DEVNULL)
        known = networks(folder)
        kept = {}
        for name, tensor in sorted(load_file(file).items()):
            names = [known[digest(part)] for part in parts(name, tensor) if digest(part) in known]
            if not names:
                raise SystemExit(f"{shape}: {name} has no tensor of the folder's values")
            for other in names:
                kept.setdefault(prefixes(name, other), (name, other))
        return sorted(set(kept.values()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scripts", type=pathlib.Path, required=True)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    for shape in SHAPES:
        kept = pairs(args.scripts, shape)
        if shape == "sd2":  # its UNet and VAE are those of SD 1, and its layers are alike
            kept = [pair for pair in kept if re.search(r"cond_stage_model(?!.*resblocks\.([2-9]|1\d))", pair[0])]
        lines = [f"{ldm} {diffusers}\n" for ldm, diffusers in kept]
        (args.output / f"{shape}.txt").write_text("".join(lines))


if __name__ == "__main__":
    main()
