"""Time diffusers (eager, channels-last) on a model folder; prints one JSON object.

    diffusers_peer.py MODEL --dtype bfloat16 --steps 4            # every stage, in one process
    diffusers_peer.py MODEL --steps 1 --cold --output one.png     # only load, draw, write: time it from outside
"""

import time

STARTED = time.perf_counter()

import argparse
import json
import os
import re
import statistics

PROMPT = "a red circle above a blue square on a white background"


def milliseconds(since):
    return (time.perf_counter() - since) * 1000


def peak_rss():
    with open("/proc/self/status", encoding="ascii") as status:
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read()).group(1)) * 1024


def spread(times):
    return {"min": min(times), "median": statistics.median(times), "mean": statistics.fmean(times)}


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--width", type=int)
    parser.add_argument("--height", type=int)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--guidance-scale", type=float, default=7.5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--decodes", type=int, default=3, help="how often the VAE is timed")
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--cold", action="store_true", help="draw one picture and nothing else")
    parser.add_argument("--output", help="write the picture here")
    args = parser.parse_args()
    if args.steps < 2 and not args.cold:
        parser.error("--steps must be at least 2, because the first step is not timed")
    return args


def main():
    args = parse()
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from diffusers import DiffusionPipeline

    torch.set_num_threads(args.threads)
    figures = {"model": args.model, "dtype": args.dtype, "threads": args.threads, "steps": args.steps,
               "import_ms": milliseconds(STARTED)}

    begin = time.perf_counter()
    pipeline = DiffusionPipeline.from_pretrained(args.model, dtype=getattr(torch, args.dtype), local_files_only=True)
    pipeline.unet.to(memory_format=torch.channels_last)
    pipeline.vae.to(memory_format=torch.channels_last)
    pipeline.set_progress_bar_config(disable=True)
    figures["load_ms"] = milliseconds(begin)

    encode_times, step_ends, kept = [], [], {}

    def timed_encode(*positional, original=pipeline.encode_prompt, **named):
        start = time.perf_counter()
        answer = original(*positional, **named)
        encode_times.append(milliseconds(start))
        return answer

    def after_step(_, index, timestep, tensors):
        step_ends.append(time.perf_counter())
        kept["latents"] = tensors["latents"]
        return tensors

    pipeline.encode_prompt = timed_encode
    size = {name: getattr(args, name) for name in ("width", "height") if getattr(args, name)}
    with torch.inference_mode():
        image = pipeline(args.prompt, num_inference_steps=args.steps, guidance_scale=args.guidance_scale,
                         generator=torch.Generator("cpu").manual_seed(0), callback_on_step_end=after_step,
                         **size).images[0]
        if args.output:
            image.save(args.output)
        figures.update(width=image.width, height=image.height, encode_ms=encode_times[0],
                       peak_rss_bytes=peak_rss())
        if not args.cold:
            # The first step's beginning is not visible from here: its time is left out.
            steps = [(b - a) * 1000 for a, b in zip(step_ends, step_ends[1:])]
            figures["step_ms"] = spread(steps)
            latents = kept["latents"].to(pipeline.vae.dtype) / pipeline.vae.config.scaling_factor
            decodes = []
            for _ in range(args.decodes):
                start = time.perf_counter()
                pipeline.vae.decode(latents, return_dict=False)
                decodes.append(milliseconds(start))
            figures["decode_ms"] = spread(decodes)
            figures["peak_rss_bytes"] = peak_rss()
    figures["total_ms"] = milliseconds(STARTED)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
