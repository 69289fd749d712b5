"""Make a random UNet folder, or time diffusers on one: the peer of unet_bench.

    python bench/peers/unet_peer.py make sd15|sdxl FOLDER [float32|bfloat16]
    python bench/peers/unet_peer.py time FOLDER [float32|bfloat16] [batch] [latent side] [runs] [--profile]
"""

import sys
import time

import torch
from diffusers import UNet2DConditionModel

SHAPES = {
    "sd15": dict(sample_size=64, cross_attention_dim=768),
    "sdxl": dict(
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=[1, 2, 10],
        attention_head_dim=[5, 10, 20],
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    ),
}


def make(shape, folder, dtype="float32"):
    torch.manual_seed(0)
    torch.set_default_dtype(getattr(torch, dtype))
    UNet2DConditionModel(**SHAPES[shape]).save_pretrained(folder, max_shard_size="20GB")


@torch.inference_mode()
def measure(folder, dtype="bfloat16", batch=2, side=64, runs=3, profile=False):
    batch, side, runs = int(batch), int(side), int(runs)
    dtype = getattr(torch, dtype)
    unet = UNet2DConditionModel.from_pretrained(folder, torch_dtype=dtype).eval().to(memory_format=torch.channels_last)
    sample = torch.randn(batch, unet.config.in_channels, side, side, dtype=dtype).to(memory_format=torch.channels_last)
    text = torch.randn(batch, 77, unet.config.cross_attention_dim, dtype=dtype)
    added = None
    if unet.config.addition_embed_type == "text_time":
        pooled = unet.config.projection_class_embeddings_input_dim - 6 * unet.config.addition_time_embed_dim
        added = dict(text_embeds=torch.randn(batch, pooled, dtype=dtype), time_ids=torch.full((batch, 6), 512.0))
    times, processor = [], []
    for _ in range(runs + 1):
        start, processor_start = time.perf_counter(), time.process_time()
        unet(sample, torch.full((batch,), 500.0), text, added_cond_kwargs=added)
        times.append(1e3 * (time.perf_counter() - start))
        processor.append(1e3 * (time.process_time() - processor_start))
    print(f"first forward {times[0]:.1f} ms, processor {processor[0]:.1f} ms")
    if runs:
        print(f"forward {min(times[1:]):.1f} ms, processor {min(processor[1:]):.1f} ms, fastest of {runs}")
    if profile:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as trace:
            unet(sample, torch.full((batch,), 500.0), text, added_cond_kwargs=added)
        print(trace.key_averages().table(sort_by="self_cpu_time_total", row_limit=15, max_name_column_width=40))


if __name__ == "__main__":
    flags = [argument for argument in sys.argv[1:] if argument.startswith("--")]
    words = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    if len(words) < 2 or words[0] not in ("make", "time"):
        sys.exit(__doc__)
    if words[0] == "make":
        make(*words[1:])
    else:
        measure(*words[1:], **({"profile": True} if "--profile" in flags else {}))
