"""What the training programs share: clock, arithmetic, learning rate, averages, checkpoints, batches."""

import copy
import os
import random
import time

import numpy as np
import torch

from scenes import render


class Clock:
    """A run's progress from 0 to 1 by wall-clock time, so that pauses and load cannot overrun it."""

    def __init__(self, minutes):
        self.start = time.time()
        self.seconds = minutes * 60

    def elapsed(self):
        return time.time() - self.start

    def progress(self):
        return min(1.0, self.elapsed() / self.seconds)


class Threads:
    """One thread while other programs run (two would wait for each other), else all cores."""

    def __init__(self):
        self.others = 0.0

    def adapt(self):
        """Count the runnable tasks beside this one, smoothed, and set the threads by it."""
        with open("/proc/loadavg") as file:
            running = int(file.read().split()[3].split("/")[0])
        self.others += 0.2 * (min(running - 1, 2) - self.others)
        torch.set_num_threads(1 if self.others > 0.5 else os.cpu_count())


def fast_arithmetic():
    """A context in which products are of bfloat16, where the processor has units for them."""
    return torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported())


def learning_rate(progress, step, warm_up=100, flat_until=0.5):
    """The factor on the learning rate: a warm-up, then constant, then linear to zero."""
    decay = min(1.0, (1 - progress) / (1 - flat_until))
    return decay * min(1.0, (step + 1) / warm_up)


def set_learning_rate(optimizers, factor):
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("base_lr", group["lr"]) * factor


class Average:
    """An exponential moving average of a module's weights."""

    def __init__(self, module, decay):
        self.module = copy.deepcopy(module).requires_grad_(False).eval()
        self.decay = decay

    @torch.no_grad()
    def update(self, module, step):
        decay = min(self.decay, (step + 1) / (step + 20))
        torch._foreach_lerp_(list(self.module.parameters()), list(module.parameters()), 1 - decay)


def save_atomically(state, path):
    """Save a checkpoint so that a reader never meets half of one."""
    torch.save(state, f"{path}.part")
    os.replace(f"{path}.part", path)


def pictures(scenes, seed):
    """Draw scenes; returns a batch of channels-first pictures from -1 to 1."""
    rng = random.Random(seed)
    batch = np.stack([render(scene, rng) for scene in scenes])
    batch = torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 127.5 - 1
    return batch.contiguous()


def to_bytes(images):
    """Pictures from -1 to 1, channels first, as an array of bytes, channels last."""
    images = (images.float().clamp(-1, 1) + 1) * 127.5
    return images.permute(0, 2, 3, 1).round().to(torch.uint8).contiguous().numpy()
