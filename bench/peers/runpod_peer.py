"""A serverless worker as they are usually written: RunPod's SDK around a diffusers pipeline, loaded before it asks for jobs.

    runpod_peer.py MODEL --dtype bfloat16 --threads 2

Input {"prompt", "width"?, "height"?, "steps"?, "seed"?} -> {"images": [PNG in base64], "seeds": [seed]}.
"""

import argparse
import base64
import io
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
import runpod
import torch
from diffusers import DiffusionPipeline


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    sys.argv = sys.argv[:1]  # the SDK reads what is left
    torch.set_num_threads(args.threads)
    pipeline = DiffusionPipeline.from_pretrained(args.model, dtype=getattr(torch, args.dtype), local_files_only=True)
    pipeline.unet.to(memory_format=torch.channels_last)
    pipeline.vae.to(memory_format=torch.channels_last)
    pipeline.set_progress_bar_config(disable=True)

    def handle(job):
        asked = job["input"]
        size = {name: asked[name] for name in ("width", "height") if name in asked}
        seed = asked.get("seed", 0)
        with torch.inference_mode():
            image = pipeline(asked["prompt"], num_inference_steps=asked.get("steps", 20),
                             generator=torch.Generator("cpu").manual_seed(seed), **size).images[0]
        png = io.BytesIO()
        image.save(png, format="PNG")
        return {"images": [base64.b64encode(png.getvalue()).decode()], "seeds": [seed]}

    runpod.serverless.start({"handler": handle})


if __name__ == "__main__":
    main()
