"""Train the denoiser on cached latents and text states; the other parts stay frozen.

The pool of captioned latents grows while training goes on. The loss is the plain squared error of
the velocity, over timesteps of which more are noisy ones. The run ends when its minutes are over,
with the learning rate at zero; `--resume` starts another one from the last checkpoint.
"""

import argparse
import json
import pathlib
import random
import time

import torch
import torch.nn.functional as F

import judge
from model import (CONTEXT, POOLED_WIDTH, SCALING_FACTOR, TEXT_WIDTH, TIME_IDS, build_scheduler,
                   build_text_encoders, build_unet, build_vae)
from muon import build_optimizers
from run import (Average, Clock, Threads, fast_arithmetic, learning_rate, pictures,
                 save_atomically, set_learning_rate, to_bytes)
from scenes import caption, held_out_prompts, random_scene
from tokenizer import build_tokenizers
from train_text import encode, tokenise
from train_vae import encode_mean

NOISE_BIAS = 0.6  # below 1: more of the samples where the text decides what the picture will be
FIRST_POOL = 3000  # captioned latents before the first step
NO_TEXT_SHARE = 0.1  # of samples whose text is all zeros, for guidance


class FrozenParts:
    """The trained autoencoder and text encoders, as functions without gradients."""

    def __init__(self, work):
        self.tokenizers = build_tokenizers(work / "tokenizer")
        self.encoders = build_text_encoders(self.tokenizers[0])
        states = torch.load(work / "text.pt", weights_only=True)["encoders"]
        for encoder, state in zip(self.encoders, states):
            encoder.load_state_dict(state)
            encoder.eval()
        self.vae = build_vae().eval()
        self.vae.load_state_dict(torch.load(work / "vae.pt", weights_only=True)["vae"])

    @torch.no_grad()
    def text(self, captions):
        """The states (both encoders' side by side) and the pooled vectors of captions."""
        first, second, pooled = encode(self.encoders, tokenise(self.tokenizers, captions))
        return torch.cat([first, second], dim=2), pooled

    @torch.no_grad()
    def latents(self, scenes, seed):
        return encode_mean(self.vae, pictures(scenes, seed)) * SCALING_FACTOR

    @torch.no_grad()
    def decode(self, latents):
        """Pictures, as bytes, of latents."""
        return to_bytes(self.vae.decode(latents / SCALING_FACTOR).sample)


class Pool:
    """Captioned latents with their text states, in memory; new ones replace the oldest."""

    def __init__(self, parts, capacity, pair_share, rng):
        self.parts, self.capacity, self.pair_share, self.rng = parts, capacity, pair_share, rng
        self.count = 0
        self.latents = torch.empty(capacity, 4, 16, 16)
        self.states = torch.empty(capacity, CONTEXT, 2 * TEXT_WIDTH, dtype=torch.bfloat16)
        self.pooled = torch.empty(capacity, POOLED_WIDTH)

    def grow(self, count):
        """Add captioned pictures; two-shape scenes come with their mirrored scene."""
        scenes = []
        while len(scenes) < count:
            pair = self.rng.random() < self.pair_share / (2 - self.pair_share)
            scene = random_scene(self.rng, pair, held_out=False)
            scenes.append(scene)
            if scene.b and not scene.swapped().held_out():
                scenes.append(scene.swapped())
        states, pooled = self.parts.text([caption(scene, self.rng) for scene in scenes])
        latents = self.parts.latents(scenes, self.rng.getrandbits(32))
        for latent, state, vector in zip(latents, states, pooled):
            slot = self.count % self.capacity
            self.latents[slot], self.states[slot], self.pooled[slot] = latent, state, vector
            self.count += 1

    def sample(self, count):
        """A random batch of latents, states and pooled vectors, some without text."""
        chosen = torch.randint(min(self.count, self.capacity), (count,))
        keep = (torch.rand(count) >= NO_TEXT_SHARE).float()
        states = self.states[chosen].float() * keep[:, None, None]
        return self.latents[chosen], states, self.pooled[chosen] * keep[:, None]


def denoise(unet, noisy, timesteps, states, pooled):
    """The denoiser's output, conditioned as SDXL's pipeline conditions it."""
    time_ids = torch.tensor([TIME_IDS], dtype=torch.float32).expand(len(noisy), -1)
    added = {"text_embeds": pooled, "time_ids": time_ids}
    return unet(noisy, timesteps, states, added_cond_kwargs=added, return_dict=False)[0]


def training_loss(unet, latents, states, pooled, alphas):
    """The squared error of the velocity, at timesteps spread over the batch, more at much noise."""
    count = len(latents)
    even = (torch.arange(count) + torch.rand(count)) / count
    timesteps = (even ** NOISE_BIAS * len(alphas)).long()
    signal = alphas[timesteps].sqrt().view(-1, 1, 1, 1)
    dirt = (1 - alphas[timesteps]).sqrt().view(-1, 1, 1, 1)
    noise = torch.randn_like(latents)
    with fast_arithmetic():
        velocity = denoise(unet, signal * latents + dirt * noise, timesteps, states, pooled)
    return F.mse_loss(velocity.float(), signal * noise - dirt * latents)


def text_with_and_without(parts, prompts):
    """Text states and pooled vectors for guidance: all zeros first, then of the prompts."""
    states, pooled = parts.text(prompts)
    return (torch.cat([torch.zeros_like(states), states]),
            torch.cat([torch.zeros_like(pooled), pooled]))


def guided_velocity(unet, noisy, timestep, text, guidance):
    """The denoiser's output, led away from what it says without text."""
    plain, told = denoise(unet, torch.cat([noisy, noisy]), timestep, *text).chunk(2)
    return plain + guidance * (told - plain)


@torch.no_grad()
def sample(unet, parts, prompts, steps=16, guidance=2.0, seed=0):
    """Draw pictures of prompts with the default sampler."""
    scheduler = build_scheduler()
    scheduler.set_timesteps(steps)
    text = text_with_and_without(parts, prompts)
    noise = torch.randn(len(prompts), 4, 16, 16, generator=torch.Generator().manual_seed(seed))
    latents = noise * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        noisy = scheduler.scale_model_input(latents, timestep)
        velocity = guided_velocity(unet, noisy, timestep, text, guidance)
        latents = scheduler.step(velocity, timestep, latents).prev_sample
    return parts.decode(latents)


def evaluate(unet, parts, count, sheet=None):
    """The judge's scores on held-out prompts of both kinds; optionally a sheet of pictures."""
    scores, drawn = {}, []
    for kind, pair in (("one shape", False), ("two shapes", True)):
        cases = held_out_prompts(count, pair, seed=7 + pair)
        images = sample(unet, parts, [prompt for _, prompt in cases])
        verdicts = [(scene, judge.judge(image, scene)) for image, (scene, _) in zip(images, cases)]
        scores[kind] = judge.summarise(verdicts)
        drawn += list(images[:20])
    if sheet:
        judge.sheet(drawn).save(sheet)
    return scores


class Run:
    """The denoiser in training: weights, their average, optimizers, and the record of it all."""

    def __init__(self, args):
        self.args = args
        self.path = args.work / "unet.pt"
        self.parts = FrozenParts(args.work)
        self.unet = build_unet()
        self.average = Average(self.unet, decay=0.998)
        self.record = {"steps": 0, "samples": 0, "minutes": 0.0, "history": []}
        if args.resume:
            checkpoint = torch.load(self.path, weights_only=True)
            self.unet.load_state_dict(checkpoint["unet"])
            self.average.module.load_state_dict(checkpoint["average"])
            self.record = checkpoint["record"]
        ends = [self.unet.conv_in, self.unet.conv_out, self.unet.time_embedding]
        self.optimizers = build_optimizers([self.unet], args.muon_lr, args.adam_lr, ends)
        self.alphas = build_scheduler().alphas_cumprod
        self.pool = Pool(self.parts, args.pool, args.pair_share, random.Random(time.time()))
        for _ in range(FIRST_POOL // 100):
            self.pool.grow(100)

    def step(self, factor):
        """Train on one batch with the learning rate times `factor`; returns the loss."""
        set_learning_rate(self.optimizers, factor)
        if self.pool.count < self.pool.capacity:
            self.pool.grow(self.args.batch // 8)
        loss = training_loss(self.unet, *self.pool.sample(self.args.batch), self.alphas)
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.average.update(self.unet, self.record["steps"])
        self.record["steps"] += 1
        self.record["samples"] += self.args.batch
        return loss.item()

    def note_loss(self, minutes, loss):
        self.record["minutes"] = minutes
        entry = {"minutes": round(minutes, 1), "samples": self.record["samples"],
                 "loss": round(loss, 5)}
        self.record["history"].append(entry)
        print(json.dumps(entry), flush=True)

    def note_scores(self):
        scores = evaluate(self.average.module, self.parts, 40, self.args.work / "sheet.png")
        self.record["history"][-1]["scores"] = scores
        print(json.dumps(scores), flush=True)

    def save(self):
        state = {"unet": self.unet.state_dict(), "average": self.average.module.state_dict(),
                 "record": self.record}
        save_atomically(state, self.path)


def train(run, minutes, evaluate_every):
    """Train for so many minutes, with a checkpoint every minute and scores now and then."""
    clock, threads, before = Clock(minutes), Threads(), run.record["minutes"]
    losses, steps, noted, evaluated = [], 0, 0.0, 0.0
    while clock.progress() < 1:
        threads.adapt()
        losses.append(run.step(learning_rate(clock.progress(), steps, warm_up=30)))
        steps += 1
        if clock.elapsed() - noted > 60:
            noted = clock.elapsed()
            run.note_loss(before + noted / 60, sum(losses) / len(losses))
            run.save()
            losses = []
        if not losses and clock.elapsed() - evaluated > 60 * evaluate_every:
            evaluated = clock.elapsed()
            run.note_scores()
    if losses:
        run.note_loss(before + minutes, sum(losses) / len(losses))
    run.note_scores()
    run.save()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=pathlib.Path, required=True, help="folder of checkpoints")
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--muon-lr", type=float, default=0.015)
    parser.add_argument("--adam-lr", type=float, default=2e-3)
    parser.add_argument("--pool", type=int, default=40000, help="captioned latents kept in memory")
    parser.add_argument("--pair-share", type=float, default=0.5, help="of pictures, with two shapes")
    parser.add_argument("--evaluate-every", type=float, default=12, help="minutes")
    parser.add_argument("--resume", action="store_true", help="go on from the folder's unet.pt")
    args = parser.parse_args()
    torch.manual_seed(int(time.time()))
    train(Run(args), args.minutes, args.evaluate_every)
    print("done", flush=True)


if __name__ == "__main__":
    main()
