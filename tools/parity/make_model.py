"""Write a Diffusers model folder with random weights: tiny ones for parity, full-size ones for benchmarks.

    make_model.py --shape tiny-sdxl --seed 3 --output /tmp/model
    make_model.py --shape sd15 --dtype bfloat16 --output /tmp/sd15
"""

import argparse
import json
import math
import pathlib

import diffusers
import torch
import transformers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from shapes import SHAPES

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Enough merges that some words are one token, some several and some single bytes.
MERGED_WORDS = ["a", "red", "blue", "circle", "square", "above", "on", "photo", "of", "the", "cat", "ing"]
diffusers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
START, END = "<|startoftext|>", "<|endoftext|>"


def byte_symbols():
    """The printable stand-ins for the 256 bytes, in the order of CLIP's vocabulary."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = 256 - len(printable)
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(hidden)]


def merges_for(words):
    """Left-to-right merges that make each word one symbol."""
    merges = []
    for word in words:
        symbols = [*word[:-1], word[-1] + "</w>"]
        left = symbols[0]
        for right in symbols[1:]:
            if (left, right) not in merges:
                merges.append((left, right))
            left += right
    return merges


def write_tokenizer(folder, pad):
    """vocab.json, merges.txt and their settings; END has the highest id, as in CLIP's own vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    merges = merges_for(MERGED_WORDS)
    single = byte_symbols()
    tokens = [*single, *(s + "</w>" for s in single), *(a + b for a, b in merges), START, END]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = dict(tokenizer_class="CLIPTokenizer", model_max_length=77, bos_token=START, eos_token=END,
                    unk_token=END, pad_token=pad)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return CLIPTokenizer.from_pretrained(folder), vocab


def fill(module, generator):
    """Random weights that keep activations near 1: variance 1/fan_in, small biases, norms near the identity."""
    for name, parameter in sorted(module.named_parameters()):
        if name.endswith("bias"):
            parameter.data.normal_(0.0, 0.1, generator=generator)
        elif parameter.dim() == 1:
            parameter.data.normal_(1.0, 0.1, generator=generator)
        elif "embedding" in name and parameter.dim() == 2 and "time" not in name and "add" not in name:
            parameter.data.normal_(0.0, 0.7, generator=generator)
        else:
            fan_in = math.prod(parameter.shape[1:])
            # The picture should fill -1..1 and seldom leave it.
            gain = 0.5 if name == "decoder.conv_out.weight" else 1.0
            parameter.data.normal_(0.0, gain / math.sqrt(fan_in), generator=generator)


def build(cls, config, dtype, generator):
    """An instance of `cls` whose weights were never allocated in another dtype."""
    with torch.device("meta"):
        module = cls(**config) if isinstance(config, dict) else cls(config)
    module = module.to(dtype).to_empty(device="cpu").eval()
    for name, buffer in module.named_buffers():
        if name.endswith("position_ids"):
            buffer.data.copy_(torch.arange(buffer.shape[-1]).expand(buffer.shape))
    fill(module, generator)
    return module


def write_scheduler(folder, class_name, settings):
    """scheduler_config.json; `clip_sample` is there for the samplers that know it, as in published checkpoints.

    With random weights a clipped sample would make a run chaotic: rounding errors grow by ten at every step.
    """
    getattr(diffusers, class_name)(**settings).save_pretrained(folder)
    path = folder / "scheduler_config.json"
    config = dict({"clip_sample": False}, **json.loads(path.read_text()))
    path.write_text(json.dumps(dict(sorted(config.items())), indent=2) + "\n")


def make_model(shape, output, seed=0, dtype=torch.float32, scheduler=None, prediction=None, variant=None):
    """Write the model `shape` (a key of SHAPES) to the folder `output`."""
    spec = SHAPES[shape]
    output = pathlib.Path(output)
    output.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    index = {"_class_name": spec["pipeline"], "_diffusers_version": diffusers.__version__}
    index.update(spec.get("flags", {}))

    class_name, settings = spec["scheduler"]
    if scheduler:
        class_name = scheduler
    if prediction:
        settings = dict(settings, prediction_type=prediction)
    write_scheduler(output / "scheduler", class_name, settings)
    index["scheduler"] = ["diffusers", class_name]

    for suffix, pad, cls in (("", END, CLIPTextModel), ("_2", "!", CLIPTextModelWithProjection)):
        config = spec.get("text_encoder" + suffix)
        if not config:
            continue
        _, vocab = write_tokenizer(output / ("tokenizer" + suffix), pad)
        config = dict(dict(vocab_size=len(vocab), eos_token_id=vocab[END]), **config)
        config = CLIPTextConfig(bos_token_id=vocab[START], pad_token_id=vocab[pad], **config)
        encoder = build(cls, config, dtype, generator)
        encoder.save_pretrained(output / ("text_encoder" + suffix), variant=variant)
        index["text_encoder" + suffix] = ["transformers", cls.__name__]
        index["tokenizer" + suffix] = ["transformers", "CLIPTokenizer"]

    counts = {}
    for name, cls in (("unet", diffusers.UNet2DConditionModel), ("vae", diffusers.AutoencoderKL)):
        module = build(cls, spec[name], dtype, generator)
        counts[name] = sum(p.numel() for p in module.parameters())
        module.save_pretrained(output / name, variant=variant)
        index[name] = ["diffusers", cls.__name__]
    if spec["pipeline"].startswith("StableDiffusionXL"):
        index.update(image_encoder=[None, None], feature_extractor=[None, None])
    else:
        index.update(safety_checker=[None, None], feature_extractor=[None, None], image_encoder=[None, None],
                     requires_safety_checker=False)
    (output / "model_index.json").write_text(json.dumps(dict(sorted(index.items())), indent=2) + "\n")
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), required=True)
    parser.add_argument("--output", type=pathlib.Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="float32")
    parser.add_argument("--scheduler", help="diffusers class name, instead of the shape's own")
    parser.add_argument("--prediction", choices=["epsilon", "v_prediction", "sample"])
    parser.add_argument("--variant", help="write *.VARIANT.safetensors, for example fp16")
    args = parser.parse_args()
    counts = make_model(args.shape, args.output, args.seed, DTYPES[args.dtype], args.scheduler, args.prediction,
                        args.variant)
    print(f"{args.output}: " + ", ".join(f"{name} {count:,} parameters" for name, count in counts.items()))


if __name__ == "__main__":
    main()
