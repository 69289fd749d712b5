"""Train both text encoders to write what a caption says in fixed codes, before any picture is seen.

A scene is described by features that are canonical in space (object a is the left or the top one).
Fixed random orthonormal matrices turn the features into target codes. The pooled vector is to hold
all of them; the states from the end-of-text position on hold, by turns, those of object a, of
object b and of the whole scene, so that the denoiser's cross-attention has a token to look at for
each. The encoders are frozen afterwards.
"""

import argparse
import pathlib
import random
import time

import torch
import torch.nn.functional as F

from model import CONTEXT, POOLED_WIDTH, TEXT_WIDTH, build_text_encoders
from run import Clock, Threads, learning_rate, save_atomically, set_learning_rate
from scenes import (BACKGROUND_NAMES, COLOUR_NAMES, LAYOUTS, SHAPE_NAMES, SIZES, caption,
                    random_scene)
from tokenizer import build_tokenizers

SLOTS = {
    "layout": LAYOUTS, "size": SIZES, "background": BACKGROUND_NAMES,
    "colour a": COLOUR_NAMES, "shape a": SHAPE_NAMES,
    "colour b": COLOUR_NAMES, "shape b": SHAPE_NAMES,
}
TURNS = [
    ["layout", "size", "colour a", "shape a"],
    ["layout", "colour b", "shape b"],
    ["layout", "size", "background"],
]
FEATURES = sum(map(len, SLOTS.values()))
EMPTY_SHARE = 0.02  # of captions that are empty and describe nothing
SHORT = 32  # positions of the first half's steps, for speed; no caption is longer


def slot_values(scene):
    """The index of each slot's value; -1 for what the scene has not."""
    things = [scene.a, scene.b]
    names = [scene.layout, scene.size, scene.background]
    names += [name for t in things for name in ((t.colour, t.shape) if t else (None, None))]
    return [v.index(n) if n else -1 for v, n in zip(SLOTS.values(), names)]


def slot_range(slot):
    """The slice of the features that stands for a slot."""
    start = 0
    for name, values in SLOTS.items():
        if name == slot:
            return slice(start, start + len(values))
        start += len(values)
    raise KeyError(slot)


def features(values):
    """Slot values as zeros and ones; an empty caption (None) is all zeros."""
    row = torch.zeros(FEATURES)
    if values is not None:
        for slot, value in zip(SLOTS, values):
            if value >= 0:
                row[slot_range(slot).start + value] = 1
    return row


def code_matrix(width, seed):
    """Fixed orthonormal columns, scaled so that the codes' entries are of order one."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.linalg.qr(torch.randn(width, FEATURES + len(TURNS), generator=generator))[0]
    return matrix * (width / 5) ** 0.5


def turn_mask():
    """Which features a state at position p holds (row p), with a mark of whose turn it is."""
    mask = torch.zeros(CONTEXT, FEATURES)
    mark = torch.zeros(CONTEXT, len(TURNS))
    for position in range(CONTEXT):
        turn = position % len(TURNS)
        mark[position, turn] = 1
        for slot in TURNS[turn]:
            mask[position, slot_range(slot)] = 1
    return mask, mark


class Codes:
    """The encoders' targets, and the way back from codes to slots."""

    def __init__(self):
        self.states = [code_matrix(TEXT_WIDTH, 1), code_matrix(TEXT_WIDTH, 2)]
        self.pooled = code_matrix(POOLED_WIDTH, 3)[:, :FEATURES]
        self.mask, self.mark = turn_mask()

    def state_targets(self, rows):
        """Targets of all positions, for the first and for the second encoder."""
        marks = self.mark.expand(len(rows), -1, -1)
        marked = torch.cat([rows[:, None] * self.mask, marks], dim=2)
        return [marked @ matrix.T for matrix in self.states]

    def pooled_targets(self, rows):
        return rows @ self.pooled.T

    def right_slots(self, codes, matrix, values, slots):
        """For each slot the share of scenes that have it whose value is read back correctly."""
        scores = codes @ matrix[:, :FEATURES]
        result = {}
        for slot in slots:
            truth = values[:, list(SLOTS).index(slot)]
            right = scores[:, slot_range(slot)].argmax(1) == truth
            result[slot] = right[truth >= 0].float().mean().item()
        return result


def tokenise(tokenizers, captions):
    """Both encoders' token ids, padded to the full context."""
    return [
        t(captions, padding="max_length", truncation=True, return_tensors="pt")["input_ids"]
        for t in tokenizers
    ]


def encode(encoders, ids):
    """The states and the pooled vector as SDXL's pipeline takes them from the encoders."""
    first = encoders[0](ids[0], output_hidden_states=True)
    second = encoders[1](ids[1], output_hidden_states=True)
    return first.hidden_states[-2], second.hidden_states[-2], second.text_embeds


def random_batch(rng, tokenizers, count, held_out):
    """Token ids, slot values and features of random captions, two thirds of them of two shapes."""
    scenes = [random_scene(rng, rng.random() < 0.67, held_out) for _ in range(count)]
    captions = [caption(scene, rng) for scene in scenes]
    values = [slot_values(scene) for scene in scenes]
    rows = torch.stack([features(v) for v in values])
    if not held_out:
        for i in range(count):
            if rng.random() < EMPTY_SHARE:
                captions[i] = ""
                rows[i] = 0
    return tokenise(tokenizers, captions), torch.tensor(values), rows


def training_loss(encoders, codes, ids, rows):
    """Squared error of the pooled vector and of the states from the end of the text on."""
    *states, pooled = encode(encoders, ids)
    end = encoders[0].config.eos_token_id
    after = ((ids[0] == end).cumsum(1) > 0).float()[..., None]
    loss = F.mse_loss(pooled, codes.pooled_targets(rows))
    for state, target in zip(states, codes.state_targets(rows)):
        target = target[:, :state.shape[1]]
        loss = loss + ((state - target).square() * after).sum() / (after.sum() * TEXT_WIDTH)
    return loss


@torch.no_grad()
def accuracy(encoders, tokenizers, codes, count=1000):
    """The worst share of right slots on held-out captions: pooled, and in each encoder's states."""
    ids, values, _ = random_batch(random.Random(5), tokenizers, count, held_out=True)
    *states, pooled = encode(encoders, ids)
    shares = {"pooled": codes.right_slots(pooled, codes.pooled, values, SLOTS)}
    for i, state in enumerate(states):
        for position in range(CONTEXT - len(TURNS), CONTEXT):
            slots = TURNS[position % len(TURNS)]
            right = codes.right_slots(state[:, position], codes.states[i], values, slots)
            shares[f"encoder {i + 1}, position {position}"] = right
    return shares


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=pathlib.Path, required=True, help="folder of checkpoints")
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--resume", action="store_true", help="go on from the folder's text.pt")
    args = parser.parse_args()
    rng = random.Random(time.time())

    tokenizers = build_tokenizers(args.work / "tokenizer")
    encoders = build_text_encoders(tokenizers[0])
    record = {"steps": 0, "minutes": 0.0}
    if args.resume:
        checkpoint = torch.load(args.work / "text.pt", weights_only=True)
        for encoder, state in zip(encoders, checkpoint["encoders"]):
            encoder.load_state_dict(state)
        record = checkpoint["record"]
    params = [p for encoder in encoders for p in encoder.parameters()]
    optimizer = torch.optim.AdamW(params, lr=args.lr, betas=(0.9, 0.98), weight_decay=0.01)
    codes, clock, threads = Codes(), Clock(args.minutes), Threads()
    first, minutes_before, noted = record["steps"], record["minutes"], 0.0
    while clock.progress() < 1:
        threads.adapt()
        set_learning_rate([optimizer], learning_rate(clock.progress(), record["steps"] - first))
        ids, _, rows = random_batch(rng, tokenizers, args.batch, held_out=False)
        if clock.progress() < 0.5:
            ids = [i[:, :SHORT] for i in ids]
        loss = training_loss(encoders, codes, ids, rows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        record["steps"] += 1
        if clock.elapsed() - noted > 20:
            noted = clock.elapsed()
            shares = accuracy(encoders, tokenizers, codes, 300)
            worst = {name: min(right.values()) for name, right in shares.items()}
            print(f"{noted / 60:.1f} min, step {record['steps']}, loss {loss.item():.4f}, "
                  f"worst slots {min(worst.values()):.3f} {worst['pooled']:.3f}", flush=True)
    record["minutes"] = minutes_before + clock.elapsed() / 60
    record["loss"] = loss.item()
    record["accuracy"] = accuracy(encoders, tokenizers, codes)
    for name, right in record["accuracy"].items():
        print(name, {slot: round(share, 4) for slot, share in right.items()})
    states = [encoder.state_dict() for encoder in encoders]
    save_atomically({"encoders": states, "record": record}, args.work / "text.pt")


if __name__ == "__main__":
    main()
