"""Make a folder of checkpoints from an exported model, to train it further.

What export.py leaves out is lost: the weights come back rounded to float16, without the optimizers'
state. The records of the earlier runs come from the model's training.json.
"""

import argparse
import json
import pathlib
import shutil

from diffusers import StableDiffusionXLPipeline

from run import save_atomically


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=pathlib.Path, required=True, help="the model's folder")
    parser.add_argument("--work", type=pathlib.Path, required=True, help="folder of checkpoints")
    args = parser.parse_args()
    pipeline = StableDiffusionXLPipeline.from_pretrained(args.model, add_watermarker=False)
    records = json.loads((args.model / "training.json").read_text())

    vocabulary = args.work / "tokenizer"
    vocabulary.mkdir(parents=True, exist_ok=True)
    for file in ("vocab.json", "merges.txt"):
        shutil.copy(args.model / "tokenizer" / file, vocabulary / file)
    unet, vae = pipeline.unet.float().state_dict(), pipeline.vae.float().state_dict()
    encoders = [e.float().state_dict() for e in (pipeline.text_encoder, pipeline.text_encoder_2)]
    checkpoints = {
        "text": {"encoders": encoders},
        "vae": {"vae": vae, "raw": vae},
        "unet": {"unet": unet, "average": unet},
    }
    for name, checkpoint in checkpoints.items():
        save_atomically(checkpoint | {"record": records[name]}, args.work / f"{name}.pt")


if __name__ == "__main__":
    main()
