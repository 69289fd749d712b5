"""Refine the autoencoder's decoder for the finished denoiser; the codes stay as they are.

Half of each batch are the encoder's codes with noise. The others the denoiser has drawn: half-noised
codes, denoised again, with its small errors, which the decoder learns to set right.
"""

import argparse
import pathlib
import random
import time

import torch

from model import SCALING_FACTOR, build_scheduler, build_unet
from muon import build_optimizers
from run import (Average, Clock, Threads, fast_arithmetic, learning_rate, pictures,
                 save_atomically, set_learning_rate)
from scenes import caption, random_scene
from train_unet import FrozenParts, guided_velocity, text_with_and_without
from train_vae import (decode, encode_mean, picture_loss, quality, random_pictures, test_pictures)

NOISE = 0.2  # at most, on the encoder's codes, whose deviation is 1
STEPS = 8  # of the sampler, of which the last few are run on half-noised codes
CAPACITY = 3000


class RedrawnPool:
    """Codes that the denoiser has drawn anew, with the pictures that they should become."""

    def __init__(self, parts, unet, guidance, rng):
        self.parts, self.unet, self.guidance, self.rng = parts, unet, guidance, rng
        self.codes, self.images = [], []

    @torch.no_grad()
    def grow(self, count):
        """Add pictures of random scenes; the oldest go once the pool is full."""
        scenes = [random_scene(self.rng, self.rng.random() < 0.65, False) for _ in range(count)]
        images = pictures(scenes, self.rng.getrandbits(32))
        latents = encode_mean(self.parts.vae, images) * SCALING_FACTOR
        text = text_with_and_without(self.parts, [caption(scene, self.rng) for scene in scenes])
        scheduler = build_scheduler()
        scheduler.set_timesteps(STEPS)
        first = self.rng.randint(STEPS // 2 - 2, STEPS // 2 + 1)
        scheduler.set_begin_index(first)
        latents = latents + scheduler.sigmas[first] * torch.randn_like(latents)
        for timestep in scheduler.timesteps[first:]:
            noisy = scheduler.scale_model_input(latents, timestep)
            velocity = guided_velocity(self.unet, noisy, timestep, text, self.guidance)
            latents = scheduler.step(velocity, timestep, latents).prev_sample
        self.codes = [*self.codes, *latents][-CAPACITY:]
        self.images = [*self.images, *images][-CAPACITY:]

    def sample(self, count):
        chosen = self.rng.sample(range(len(self.codes)), count)
        return (torch.stack([self.codes[i] for i in chosen]),
                torch.stack([self.images[i] for i in chosen]))


def batch(vae, pool, rng, count):
    """Latents, half of them noisy ones and half redrawn ones, and their pictures."""
    images = random_pictures(rng, count // 2)
    with torch.no_grad():
        codes = encode_mean(vae, images) * SCALING_FACTOR
    codes = codes + NOISE * torch.rand(len(codes), 1, 1, 1) * torch.randn_like(codes)
    redrawn_codes, redrawn_images = pool.sample(count // 2)
    return torch.cat([codes, redrawn_codes]), torch.cat([images, redrawn_images])


def train(vae, pool, args, save):
    """Train the decoder for so many minutes; calls `save` with its average every minute."""
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    ends = [vae.decoder.conv_out, vae.post_quant_conv]
    optimizers = build_optimizers([vae], args.muon_lr, args.adam_lr, ends)
    average, test = Average(vae, decay=0.995), test_pictures()
    clock, threads, steps, noted, losses = Clock(args.minutes), Threads(), 0, 0.0, []
    while clock.progress() < 1:
        threads.adapt()
        set_learning_rate(optimizers, learning_rate(clock.progress(), steps, 20, flat_until=0.3))
        if steps % 16 == 0:
            pool.grow(16)
        codes, images = batch(vae, pool, pool.rng, args.batch)
        with fast_arithmetic():
            decoded = decode(vae, codes / SCALING_FACTOR).float()
        loss = picture_loss(decoded, images)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
        average.update(vae, steps)
        steps += 1
        if clock.elapsed() - noted > 60 or clock.progress() == 1:
            noted = clock.elapsed()
            psnr = quality(average.module, test)
            print(f"{noted / 60:.1f} min, step {steps}, loss {sum(losses) / len(losses):.4f}, "
                  f"held-out {psnr:.2f} dB", flush=True)
            losses = []
            save(average.module, steps, noted / 60, psnr)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=pathlib.Path, required=True, help="folder of checkpoints")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--muon-lr", type=float, default=0.008)
    parser.add_argument("--adam-lr", type=float, default=1e-3)
    parser.add_argument("--guidance", type=float, default=2.0)
    args = parser.parse_args()
    torch.manual_seed(int(time.time()))
    rng = random.Random(time.time())

    parts = FrozenParts(args.work)
    unet = build_unet().eval()
    unet.load_state_dict(torch.load(args.work / "unet.pt", weights_only=True)["average"])
    record = torch.load(args.work / "vae.pt", weights_only=True)["record"]
    before = record.get("decoder", {"steps": 0, "minutes": 0.0})

    def save(vae, steps, minutes, psnr):
        record["psnr"] = psnr
        record["decoder"] = {"steps": before["steps"] + steps, "minutes": before["minutes"] + minutes}
        save_atomically({"vae": vae.state_dict(), "record": record}, args.work / "vae.pt")

    pool = RedrawnPool(parts, unet, args.guidance, rng)
    for _ in range(8):
        pool.grow(16)
    train(parts.vae.to(memory_format=torch.channels_last), pool, args, save)


if __name__ == "__main__":
    main()
