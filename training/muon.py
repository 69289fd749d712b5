"""Muon: momentum whose update, for each weight matrix, is replaced by its nearest orthogonal one."""

from collections import defaultdict

import torch


def orthogonalise(matrices):
    """The orthogonal factors of a batch of matrices, roughly, by Newton-Schulz iteration."""
    a, b, c = 3.4445, -4.7750, 2.0315
    if torch.cpu._is_avx512_bf16_supported():
        matrices = matrices.bfloat16()
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = (x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7))
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Muon for weights of two or more dimensions; convolutions count as matrices."""

    def __init__(self, params, lr, momentum=0.95, weight_decay=0.01):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            same_shape = defaultdict(list)
            for p in group["params"]:
                same_shape[p.flatten(1).shape].append(p)
            for shape, params in same_shape.items():
                self._step_together(params, shape, group)

    def _step_together(self, params, shape, group):
        for p in params:
            buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
            buffer.lerp_(p.grad, 1 - group["momentum"])
        updates = torch.stack([
            p.grad.lerp(self.state[p]["momentum"], group["momentum"]).reshape(shape)
            for p in params
        ])
        scale = group["lr"] * max(1, shape[0] / shape[1]) ** 0.5
        for p, update in zip(params, orthogonalise(updates)):
            p.mul_(1 - group["lr"] * group["weight_decay"])
            p.sub_(update.float().reshape(p.shape), alpha=scale)


def build_optimizers(modules, muon_lr, adam_lr, always_adam=()):
    """Muon for the hidden weights of `modules`, AdamW for the rest and for those in `always_adam`."""
    excluded = {id(p) for module in always_adam for p in module.parameters()}
    params = [p for module in modules for p in module.parameters() if p.requires_grad]
    hidden = [p for p in params if p.ndim >= 2 and id(p) not in excluded]
    chosen = {id(p) for p in hidden}
    rest = [p for p in params if id(p) not in chosen]
    adam = torch.optim.AdamW(rest, lr=adam_lr, betas=(0.9, 0.99), weight_decay=0)
    return [Muon(hidden, lr=muon_lr), adam]
