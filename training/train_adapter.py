"""Train one of the bundled model's three adapters, each saved in another spelling.

hollow   a style: every shape is a thick contour            low rank, kohya's names
moon     a new object: a crescent, by the word "moon"       low rank, text encoders too, PEFT's names
hues     a colour shift: every shape's becomes another      LoHa, LyCORIS's names

All stay with what the autoencoder knows: the listed colours, and two of them along an edge.

The model's own weights stay frozen. The file is float16 and says in its header how to use it.
"""

import argparse
import json
import math
import pathlib
import random
import time
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from model import SCALING_FACTOR, build_scheduler, build_unet
from run import Clock, Threads, learning_rate, set_learning_rate
from scenes import CELL, SIDE, Thing, caption, coverage, flat, random_scene, render
from train_text import encode, tokenise
from train_unet import NO_TEXT_SHARE, FrozenParts, sample, training_loss
from train_vae import encode_mean

HOLLOW = 0.5  # of a shape's extent
HUES = ["red", "purple", "blue", "green", "yellow", "orange"]  # each becomes the next
OWN_SHARE = 0.75  # of the moon's scenes; the others keep what the model knows


# --- pictures ---


@lru_cache(maxsize=None)
def crescent(extent):
    """As scenes.coverage: a disc without another one to its right, in front of it."""
    y, x = (np.mgrid[:4 * (extent + CELL), :4 * (extent + CELL)] + 0.5) / 4 - (extent + CELL) / 2
    radius = extent / 2
    inside = np.hypot(x, y) <= radius
    bitten = np.hypot(x - 0.55 * radius, y) <= 0.75 * radius
    shape = (inside & ~bitten).astype(np.float32)
    side = extent + CELL
    return shape.reshape(side, 4, side, 4).mean(axis=(1, 3))[..., None]


def hollow(thing, extent, background):
    """Layers of a thing with a hole of its own shape."""
    hole = 2 * round(HOLLOW * extent / 2)
    return [*flat(thing, extent, background), (coverage(thing.shape, hole), background)]


def moon_or_flat(thing, extent, background):
    if thing.shape == "moon":
        return [(crescent(extent), thing.colour)]
    return flat(thing, extent, background)


def draw_hollow(scene, rng):
    return render(scene, rng, hollow)


def draw_moon(scene, rng):
    return render(scene, rng, moon_or_flat)


def draw_hues(scene, rng):
    """The scene with its shapes in other colours than its caption's."""
    other = dict(zip(HUES, HUES[1:] + HUES[:1]))
    things = [thing and Thing(other.get(thing.colour, thing.colour), thing.shape)
              for thing in (scene.a, scene.b)]
    return render(replace(scene, a=things[0], b=things[1]), rng)


def with_moon(scene, rng):
    """The scene, mostly with one of its objects a moon."""
    if rng.random() > OWN_SHARE:
        return scene
    if scene.b and rng.random() < 0.5:
        return replace(scene, b=Thing(scene.b.colour, "moon"))
    return replace(scene, a=Thing(scene.a.colour, "moon"))


# --- low-rank branches ---


class LowRank(nn.Module):
    """A frozen linear or convolution layer with a trained branch beside it: up(down(x))."""

    def __init__(self, layer, rank):
        super().__init__()
        self.layer, self.rank = layer, rank
        if isinstance(layer, nn.Conv2d):
            self.down = nn.Conv2d(layer.in_channels, rank, layer.kernel_size, layer.stride,
                                  layer.padding, bias=False)
            self.up = nn.Conv2d(rank, layer.out_channels, 1, bias=False)
        else:
            self.down = nn.Linear(layer.in_features, rank, bias=False)
            self.up = nn.Linear(rank, layer.out_features, bias=False)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)

    def forward(self, x):
        return self.layer(x) + self.up(self.down(x))

    def tensors(self):
        """Down and up, without the least of their singular values: it is small, and a quarter of the file."""
        if self.rank == 1:
            return {"down": self.down.weight, "up": self.up.weight}
        u, s, v = torch.linalg.svd(self.up.weight.flatten(1) @ self.down.weight.flatten(1),
                                   full_matrices=False)
        kept, root = self.rank - 1, s[:self.rank - 1].sqrt()
        down, up = self.down.weight, self.up.weight
        return {"down": (root[:, None] * v[:kept]).reshape(kept, *down.shape[1:]),
                "up": (u[:, :kept] * root).reshape(up.shape[0], kept, *up.shape[2:])}


class Hadamard(nn.Module):
    """A frozen linear layer whose weight gets (w1_a w1_b) * (w2_a w2_b) added (LoHa)."""

    def __init__(self, layer, rank):
        super().__init__()
        self.layer, self.rank = layer, rank
        sizes = {"w1_a": (layer.out_features, rank), "w1_b": (rank, layer.in_features),
                 "w2_a": (layer.out_features, rank), "w2_b": (rank, layer.in_features)}
        deviations = {"w1_a": 0.1, "w1_b": 1.0, "w2_a": 0.0, "w2_b": 1.0}
        for name, size in sizes.items():
            setattr(self, name, nn.Parameter(torch.randn(size) * deviations[name]))

    def forward(self, x):
        delta = (self.w1_a @ self.w1_b) * (self.w2_a @ self.w2_b)
        return nn.functional.linear(x, self.layer.weight + delta, self.layer.bias)

    def tensors(self):
        return {name: getattr(self, name) for name in ("w1_a", "w1_b", "w2_a", "w2_b")}


def attach(module, wanted, build):
    """Replace the layers whose name `wanted` accepts by build(layer); returns them by name."""
    module.requires_grad_(False)
    found = {}
    for name, layer in list(module.named_modules()):
        if isinstance(layer, (nn.Linear, nn.Conv2d)) and wanted(name, layer):
            parent = module.get_submodule(name.rpartition(".")[0])
            found[name] = build(layer)
            setattr(parent, name.rpartition(".")[2], found[name])
    return found


def in_attention(name, layer):
    return ".attentions." in name and isinstance(layer, nn.Linear)


def in_attention_or_resnet(name, layer):
    return in_attention(name, layer) or (".resnets." in name and ".conv" in name)


def in_text_layers(name, layer):
    return ".layers." in name


# --- spellings ---


def kohya(branches):
    """lora_unet_down_blocks_1_..._to_q.lora_down.weight, with alpha = rank."""
    result = {}
    for (part, name), branch in branches.items():
        key = f"lora_{part}_{name.replace('.', '_')}"
        tensors = branch.tensors()
        for kind, tensor in tensors.items():
            result[f"{key}.lora_{kind}.weight"] = tensor
        result[f"{key}.alpha"] = torch.tensor(float(len(tensors["down"])))
    return result


def peft(branches):
    """unet.down_blocks.1....to_q.lora_A.weight"""
    parts = {"unet": "unet", "te1": "text_encoder", "te2": "text_encoder_2"}
    letters = {"down": "A", "up": "B"}
    return {f"{parts[part]}.{name}.lora_{letters[kind]}.weight": tensor
            for (part, name), branch in branches.items()
            for kind, tensor in branch.tensors().items()}


def lycoris(branches):
    """lora_unet_down_blocks_1_..._to_q.hada_w1_a, with alpha = rank."""
    result = {}
    for (part, name), branch in branches.items():
        key = f"lora_{part}_{name.replace('.', '_')}"
        for kind, tensor in branch.tensors().items():
            result[f"{key}.hada_{kind}"] = tensor
        result[f"{key}.alpha"] = torch.tensor(float(branch.rank))
    return result


# --- training ---


class Subject:
    """What an adapter learns: its pictures, where its branches are, and how it is saved."""

    def __init__(self, draw, layers, build, spelling, change=lambda scene, rng: scene,
                 trigger="", text=False):
        self.draw, self.layers, self.build, self.spelling = draw, layers, build, spelling
        self.change, self.trigger, self.text = change, trigger, text


SUBJECTS = {
    "hollow": Subject(draw_hollow, in_attention_or_resnet, lambda layer: LowRank(
        layer, 4 if isinstance(layer, nn.Linear) else 1), kohya),
    "moon": Subject(draw_moon, in_attention, lambda layer: LowRank(layer, 4), peft,
                    with_moon, "moon", text=True),
    "hues": Subject(draw_hues, in_attention, lambda layer: Hadamard(layer, 2), lycoris),
}


class Trainer:
    """The frozen model, the branches beside it, and a pool of captioned latents."""

    def __init__(self, work, subject, pool, lr):
        self.subject, self.parts, self.rng = subject, FrozenParts(work), random.Random(time.time())
        self.unet = build_unet().eval()
        state = torch.load(work / "unet.pt", weights_only=True)["average"]
        self.unet.load_state_dict(state)
        self.branches = {("unet", name): branch for name, branch in
                         attach(self.unet, subject.layers, subject.build).items()}
        for encoder, part in zip(self.parts.encoders, ("te1", "te2")):
            wanted = in_text_layers if subject.text else (lambda name, layer: False)
            found = attach(encoder, wanted, lambda layer: LowRank(layer, 4))
            self.branches |= {(part, name): branch for name, branch in found.items()}
        self.alphas = build_scheduler().alphas_cumprod
        self.captions, self.latents = [], []
        for _ in range(pool // 50):
            self.grow(50)
        params = [p for b in self.branches.values() for p in b.parameters() if p.requires_grad]
        self.params = params
        self.optimizers = [torch.optim.AdamW(params, lr=lr, betas=(0.9, 0.99), weight_decay=0)]

    @torch.no_grad()
    def grow(self, count):
        scenes = [self.subject.change(random_scene(self.rng, self.rng.random() < 0.4, False),
                                      self.rng) for _ in range(count)]
        images = np.stack([self.subject.draw(scene, self.rng) for scene in scenes])
        images = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
        self.latents.append(encode_mean(self.parts.vae, images.contiguous()) * SCALING_FACTOR)
        self.captions += [caption(scene, self.rng) for scene in scenes]

    def step(self, count, factor):
        """Train on one batch with the learning rate times `factor`; returns the loss."""
        set_learning_rate(self.optimizers, factor)
        chosen = [self.rng.randrange(len(self.captions)) for _ in range(count)]
        latents = torch.cat(self.latents)[chosen]
        with torch.set_grad_enabled(self.subject.text):
            first, second, pooled = encode(self.parts.encoders, tokenise(
                self.parts.tokenizers, [self.captions[i] for i in chosen]))
        keep = (torch.rand(count) >= NO_TEXT_SHARE).float()
        states = torch.cat([first, second], dim=2) * keep[:, None, None]
        loss = training_loss(self.unet, latents, states, pooled * keep[:, None], self.alphas)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.params, 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        return loss.item()


def train(trainer, minutes, batch):
    """Train for so many minutes; returns the number of steps and the last loss."""
    clock, threads, steps, noted, losses = Clock(minutes), Threads(), 0, 0.0, []
    while clock.progress() < 1:
        threads.adapt()
        losses.append(trainer.step(batch, learning_rate(clock.progress(), steps, warm_up=20)))
        steps += 1
        if clock.elapsed() - noted > 30:
            noted = clock.elapsed()
            print(f"{noted / 60:.1f} min, step {steps}, loss {np.mean(losses[-50:]):.4f}", flush=True)
    return steps, float(np.mean(losses[-50:]))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subject", choices=SUBJECTS)
    parser.add_argument("--work", type=pathlib.Path, required=True, help="folder of checkpoints")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the adapter's file")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--pool", type=int, default=2000, help="captioned pictures")
    parser.add_argument("--sheet", type=pathlib.Path, help="write a few drawings here")
    args = parser.parse_args()
    torch.manual_seed(int(time.time()))
    subject = SUBJECTS[args.subject]
    trainer = Trainer(args.work, subject, args.pool, args.lr)
    steps, loss = train(trainer, args.minutes, args.batch)
    tensors = {name: tensor.detach().half().contiguous()
               for name, tensor in subject.spelling(trainer.branches).items()}
    metadata = {
        "modelspec.title": args.subject, "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
        "modelspec.description": __doc__.strip(), "modelspec.resolution": f"{SIDE}x{SIDE}",
        "modelspec.license": "Apache-2.0", "ss_base_model_version": "sdxl_base_v1-0",
        "ss_sd_model_name": "miniature", "ss_output_name": args.subject, "ss_steps": str(steps),
        "ss_loss": f"{loss:.4f}",
    }
    if subject.trigger:
        metadata["modelspec.trigger_phrase"] = subject.trigger
        metadata["ss_tag_frequency"] = json.dumps({"training": {subject.trigger: args.pool}})
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, args.out, metadata)
    print(f"{args.out}: {len(tensors)} tensors, {args.out.stat().st_size / 1024:.0f} KiB, "
          f"{steps} steps, loss {loss:.4f}")
    if args.sheet:
        prompts = ["a red circle", "a blue star on a yellow background", "a large green heart",
                   "an orange moon" if subject.trigger else "an orange ring",
                   "a yellow moon above a blue square" if subject.trigger
                   else "a yellow cross above a blue square", "a purple diamond left of a red ring"]
        import judge
        with torch.no_grad():
            judge.sheet(list(sample(trainer.unet, trainer.parts, prompts)), 6).save(args.sheet)


if __name__ == "__main__":
    main()
