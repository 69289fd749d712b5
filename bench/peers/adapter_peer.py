"""Time what diffusers and PEFT take to load an adapter file into a UNet, choose it and unload it: the peer of adapter_bench.

    python bench/peers/adapter_peer.py MODEL_FOLDER ADAPTER.safetensors [runs]

Prints one JSON object; milliseconds, the fastest of the runs.
"""

import json
import sys
import time

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel


def pipeline_around(unet):
    if unet.config.addition_embed_type == "text_time":
        return StableDiffusionXLPipeline(vae=None, text_encoder=None, text_encoder_2=None, tokenizer=None,
                                         tokenizer_2=None, unet=unet, scheduler=None)
    return StableDiffusionPipeline(vae=None, text_encoder=None, tokenizer=None, unet=unet, scheduler=None,
                                   safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def measure(folder, adapter, runs=2):
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=torch.bfloat16)
    pipeline = pipeline_around(unet)
    times = {"load_lora_weights_ms": [], "set_adapters_ms": [], "unload_lora_weights_ms": []}

    def timed(key, work):
        start = time.perf_counter()
        work()
        times[key].append(1e3 * (time.perf_counter() - start))

    for _ in range(int(runs)):
        timed("load_lora_weights_ms", lambda: pipeline.load_lora_weights(adapter, adapter_name="a"))
        timed("set_adapters_ms", lambda: pipeline.set_adapters(["a"], [0.8]))
        timed("unload_lora_weights_ms", pipeline.unload_lora_weights)
    result = {key: min(values) for key, values in times.items()}
    result["sum_ms"] = sum(result.values())
    return result


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    print(json.dumps(measure(*sys.argv[1:])))
