"""Save the trained parts as a StableDiffusionXLPipeline in float16, with its model card."""

import argparse
import json
import pathlib
import shutil

import torch
from diffusers import StableDiffusionXLPipeline

from card import write_card
from model import build_scheduler, build_text_encoders, build_unet, build_vae
from tokenizer import build_tokenizers

DEFAULTS = {"steps": 16, "guidance_scale": 2.0, "width": 128, "height": 128}


def load(work, name):
    """A checkpoint of the folder, or nothing where that part is not trained yet."""
    path = work / f"{name}.pt"
    return torch.load(path, weights_only=True) if path.exists() else None


def build_pipeline(work):
    """The pipeline from the checkpoints in `work`; untrained parts have random weights."""
    tokenizers = build_tokenizers(work / "tokenizer")
    encoders, vae, unet = build_text_encoders(tokenizers[0]), build_vae(), build_unet()
    if checkpoint := load(work, "text"):
        for encoder, state in zip(encoders, checkpoint["encoders"]):
            encoder.load_state_dict(state)
    if checkpoint := load(work, "vae"):
        vae.load_state_dict(checkpoint["vae"])
    if checkpoint := load(work, "unet"):
        unet.load_state_dict(checkpoint["average"])
    return StableDiffusionXLPipeline(
        vae=vae, unet=unet, scheduler=build_scheduler(),
        text_encoder=encoders[0], text_encoder_2=encoders[1],
        tokenizer=tokenizers[0], tokenizer_2=tokenizers[1],
        force_zeros_for_empty_prompt=True, add_watermarker=False,
    )


def save(work, folder):
    """Save the pipeline, the vocabulary files and the default settings."""
    pipeline = build_pipeline(work).to(torch.float16)
    pipeline.save_pretrained(folder)
    for name in ("tokenizer", "tokenizer_2"):
        for file in ("vocab.json", "merges.txt"):
            shutil.copy(work / "tokenizer" / file, folder / name / file)
    for file in folder.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)
    (folder / "limner.json").write_text(json.dumps({"defaults": DEFAULTS}, indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=pathlib.Path, required=True, help="folder of checkpoints")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the model's folder")
    parser.add_argument("--scores", type=pathlib.Path, help="the judge's report, for the card")
    args = parser.parse_args()
    save(args.work, args.out)
    if args.scores:
        records = {name: load(args.work, name)["record"] for name in ("text", "vae", "unet")}
        (args.out / "training.json").write_text(json.dumps(records, indent=1) + "\n")
        tokens = len(json.loads((args.out / "tokenizer/vocab.json").read_text()))
        write_card(args.out, records, json.loads(args.scores.read_text()), tokens)
    size = sum(file.stat().st_size for file in args.out.rglob("*") if file.is_file())
    print(f"{args.out}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
