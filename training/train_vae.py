"""Train the autoencoder.

Its first three latent channels are drawn towards the picture averaged over each 8 x 8 cell: flat
colours then have simple codes, which the denoiser learns fast. Codes are noised in training, so
that the decoder forgives small errors of the denoiser.
"""

import argparse
import pathlib
import random
import time

import torch
import torch.nn.functional as F

from model import SCALING_FACTOR, build_vae
from muon import build_optimizers
from run import (Average, Clock, Threads, fast_arithmetic, learning_rate, pictures,
                 save_atomically, set_learning_rate)
from scenes import random_scene

CROPPED = 0.6  # of the run sees quarters of pictures, twice as many, for speed
NOISE = 0.08  # on the codes, in units of each channel's standard deviation


def random_pictures(rng, count):
    """A batch of training pictures, two thirds of them of two shapes."""
    scenes = [random_scene(rng, rng.random() < 0.65, held_out=False) for _ in range(count)]
    return pictures(scenes, rng.getrandbits(32))


def test_pictures():
    """A fixed batch of held-out pictures."""
    return pictures([random_scene(random.Random(i), i % 2, held_out=True) for i in range(64)], 1)


def crops(rng, images):
    """A random quarter of each picture, cut along cells."""
    side = images.shape[-1] // 2
    result = []
    for image in images:
        x, y = (8 * rng.randint(0, side // 8) for _ in range(2))
        result.append(image[:, y:y + side, x:x + side])
    return torch.stack(result)


def edges(images):
    """Differences between neighbouring pixels, along both axes."""
    return images[..., 1:] - images[..., :-1], images[..., 1:, :] - images[..., :-1, :]


def encode_mean(vae, images):
    """The latents' means (the encoder's other outputs, their variances, are not used)."""
    return vae.quant_conv(vae.encoder(images)).chunk(2, dim=1)[0]


def decode(vae, codes):
    """Pictures of codes."""
    return vae.decoder(vae.post_quant_conv(codes))


def picture_loss(decoded, images):
    """How far pictures are from what they should be: pixels and contours."""
    difference = decoded - images
    pixels = difference.abs().mean() + 2 * difference.square().mean()
    contours = sum((d - i).abs().mean() for d, i in zip(edges(decoded), edges(images)))
    return pixels + 0.2 * contours


def training_loss(vae, images):
    """The loss of a batch: pixels, edges, and the latents' shape. Also the pixels' squared error."""
    with fast_arithmetic():
        mean = encode_mean(vae, images).float()
        spread = mean.detach().std(dim=(0, 2, 3), keepdim=True)
        decoded = decode(vae, mean + NOISE * spread * torch.randn_like(mean)).float()
    cells = F.avg_pool2d(images, 8)
    shape = 0.05 * F.mse_loss(mean[:, :3], cells) + 1e-4 * mean.square().mean()
    return picture_loss(decoded, images) + shape, F.mse_loss(decoded, images).detach()


@torch.no_grad()
def quality(vae, images):
    """Peak signal-to-noise ratio, in decibels, of reconstructions of `images`."""
    decoded = decode(vae, encode_mean(vae, images)).clamp(-1, 1)
    return -10 * torch.log10((decoded - images).square().mean() / 4).item()


@torch.no_grad()
def normalise(vae, images):
    """Fold the latents' mean and deviation into the convolutions beside them.

    Scaled by SCALING_FACTOR the latents then have mean 0 and deviation 1. The encoder's variances
    become constant and small.
    """
    mean = encode_mean(vae, images)
    centre, spread = mean.mean(dim=(0, 2, 3)), mean.std(dim=(0, 2, 3)) * SCALING_FACTOR
    quant, post = vae.quant_conv, vae.post_quant_conv
    post.bias += post.weight.flatten(1) @ centre
    post.weight *= spread.view(1, -1, 1, 1)
    quant.weight[:4] /= spread.view(-1, 1, 1, 1)
    quant.bias[:4] = (quant.bias[:4] - centre) / spread
    quant.weight[4:] = 0
    quant.bias[4:] = -6


class Run:
    """The autoencoder in training: weights, their average, optimizers, and the record of it all."""

    def __init__(self, args):
        self.args = args
        self.path = args.work / "vae.pt"
        self.vae = build_vae().to(memory_format=torch.channels_last)
        self.record = {"steps": 0, "minutes": 0.0, "history": []}
        if args.resume:
            checkpoint = torch.load(self.path, weights_only=True)
            self.vae.load_state_dict(checkpoint["raw"])
            self.record = checkpoint["record"]
        vae = self.vae
        ends = [vae.encoder.conv_in, vae.decoder.conv_out, vae.quant_conv, vae.post_quant_conv]
        self.optimizers = build_optimizers([vae], args.muon_lr, args.adam_lr, ends)
        self.average = Average(vae, decay=0.998)
        self.rng = random.Random(time.time())
        self.test = test_pictures()

    def step(self, factor, cropped, step):
        """Train on one batch with the learning rate times `factor`; returns the squared error."""
        set_learning_rate(self.optimizers, factor)
        if cropped:
            images = crops(self.rng, random_pictures(self.rng, 2 * self.args.batch))
        else:
            images = random_pictures(self.rng, self.args.batch)
        loss, squared = training_loss(self.vae, images)
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.average.update(self.vae, step)
        self.record["steps"] += 1
        return squared.item()

    def note_quality(self, minutes, error):
        psnr = quality(self.average.module, self.test)
        self.record["minutes"] = minutes
        self.record["psnr"] = psnr
        self.record["history"].append([round(minutes, 1), error, psnr])
        print(f"{minutes:.1f} min, step {self.record['steps']}, error {error:.5f}, "
              f"held-out {psnr:.2f} dB", flush=True)

    def save(self):
        """Save the normalised autoencoder, and what to go on from."""
        raw = self.average.module.state_dict()
        normal = build_vae()
        normal.load_state_dict(raw)
        normalise(normal, random_pictures(random.Random(0), 256))
        checkpoint = {"vae": normal.state_dict(), "raw": raw, "record": self.record}
        save_atomically(checkpoint, self.path)


def train(run, minutes):
    """Train for so many minutes, with a checkpoint every minute."""
    clock, threads, before = Clock(minutes), Threads(), run.record["minutes"]
    errors, steps, noted = [], 0, 0.0
    while clock.progress() < 1:
        threads.adapt()
        cropped = clock.progress() < CROPPED
        errors.append(run.step(learning_rate(clock.progress(), steps), cropped, steps))
        steps += 1
        if clock.elapsed() - noted > 60 or clock.progress() == 1:
            noted = clock.elapsed()
            run.note_quality(before + noted / 60, sum(errors) / len(errors))
            run.save()
            errors = []
    run.save()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=pathlib.Path, required=True, help="folder of checkpoints")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--muon-lr", type=float, default=0.01)
    parser.add_argument("--adam-lr", type=float, default=2e-3)
    parser.add_argument("--resume", action="store_true", help="go on from the folder's vae.pt")
    args = parser.parse_args()
    torch.manual_seed(int(time.time()))
    train(Run(args), args.minutes)
    print("done", flush=True)


if __name__ == "__main__":
    main()
