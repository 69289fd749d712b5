"""Write the model card from the recorded training runs and the judge's scores."""

from scenes import COLOUR_NAMES, EXTENT, SHAPE_NAMES, SIDE

CARD = """\
---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
tags: [stable-diffusion-xl, diffusers]
---
# miniature

A text-to-image model of {megabytes:.1f} MB for `limner`: Stable Diffusion XL's architecture at a
small scale, trained from random weights on two CPU cores. It draws one or two flat shapes on a
plain background, {side} x {side} pixels.

    limner generate "a red circle above a blue square on a white background" \\
        --model models/miniature --output picture.png

Recommended, and set in `limner.json`: {steps} Euler steps, guidance {guidance}, {side} x {side}.

## What it understands

- `a [small|large] COLOUR SHAPE [on a COLOUR background]`
- `a COLOUR SHAPE above|below|left of|right of a COLOUR SHAPE [on a COLOUR background]`
- Shapes: {shapes}.
- Colours: {colours}.
- A few synonyms: big, tiny, grey, violet, disc, box, donut, rhombus, over, under, "to the left of",
  "with a ... background" and the like.

Without a background the picture is white, or light gray if a shape is white.

## Parts

| part | parameters |
|---|---|
{parts}

Weights are float16. The vocabulary has {tokens} tokens; each word above is one. The denoiser
predicts velocity and was trained with zeroed text for guidance (`force_zeros_for_empty_prompt`).

## How it was made

All pictures were drawn by `training/scenes.py`; no other data were used. A tenth of all scenes,
chosen by a hash of their description, was held out of training.

| part | time | steps | result |
|---|---|---|---|
| text encoders | {text_minutes:.0f} min | {text_steps} | held-out slots right, worst: {text_worst:.1f} % |
| autoencoder | {vae_minutes:.0f} min | {vae_steps} | see the decoder |
| denoiser | {unet_minutes:.0f} min | {unet_steps} | {samples:.0f} k samples, loss {loss:.3f} |
| decoder, again | {decoder_minutes:.0f} min | {decoder_steps} | {psnr:.1f} dB on held-out pictures |

The two cores were shared with other work. First the text encoders learnt to write each caption's
meaning (layout, size, background, both objects' colour and shape) in fixed codes; then, frozen,
they conditioned the denoiser. At the end the decoder was refined on the denoiser's own drawings.

The denoiser's loss (mean squared error of the velocity) over time, and the judge's scores on 40
held-out prompts of each kind, with the decoder as it was then, not yet refined:

| minutes | samples | loss | one shape | two shapes |
|---|---|---|---|---|
{history}

## Scores

`training/judge.py` looks at the pixels: every shape, colour, size, the relation, the background,
and nothing else in the picture. Held-out prompts, {steps} steps, guidance {guidance}, {engine}:

| kind | prompts | all right | failures |
|---|---|---|---|
{scores}

## Limits

- Shapes' outlines may be rough, large round ones' above all; most failures are of this kind.
- Only the language above; other words are ignored or confuse it. No text, people or photographs.
- Objects stand near the middle, or at the middle of two halves, in steps of eight pixels. Single
  shapes are about {small}, {medium} or {large} pixels wide; of two shapes each is about {pair}.
- Sizes are understood only for one shape; three or more shapes are not understood.
- {side} x {side} pixels only.
"""


def _parts(folder):
    """The table of the parts' sizes, at two bytes for a weight."""
    rows = []
    for name in ("text_encoder", "text_encoder_2", "unet", "vae"):
        size = sum(f.stat().st_size for f in (folder / name).glob("*.safetensors"))
        rows.append(f"| `{name}` | {size / 2e6:.2f} M |")
    return "\n".join(rows)


def _history(entries):
    """The rows of the table of losses that have scores beside them."""
    return "\n".join(
        f"| {e['minutes']:.0f} | {e['samples'] / 1000:.0f} k | {e['loss']:.3f} | "
        f"{e['scores']['one shape']['percent']:.0f} % | "
        f"{e['scores']['two shapes']['percent']:.0f} % |"
        for e in entries if "scores" in e)


def _scores(report):
    """The rows of the table of final scores."""
    rows = []
    for kind in ("one shape", "two shapes"):
        result = report[kind]
        failures = ", ".join(f"{n} {k}" for k, n in result["failures"].items()) or "none"
        rows.append(f"| {kind} | {result['prompts']} | {result['percent']} % | {failures} |")
    return "\n".join(rows)


def write_card(folder, records, report, tokens):
    """Write README.md into the model's folder."""
    text, vae, unet = records["text"], records["vae"], records["unet"]
    worst = min(share for slots in text["accuracy"].values() for share in slots.values())
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.name != "README.md" and f.is_file())
    card = CARD.format(
        megabytes=size / 1e6, side=SIDE, parts=_parts(folder), tokens=tokens,
        shapes=", ".join(SHAPE_NAMES), colours=", ".join(COLOUR_NAMES),
        steps=report["steps"], guidance=report["guidance_scale"], engine=report["engine"],
        text_minutes=text["minutes"], text_steps=text["steps"], text_worst=100 * worst,
        vae_minutes=vae["minutes"], vae_steps=vae["steps"], psnr=vae["psnr"],
        decoder_minutes=vae["decoder"]["minutes"], decoder_steps=vae["decoder"]["steps"],
        unet_minutes=unet["minutes"], unet_steps=unet["steps"], samples=unet["samples"] / 1000,
        loss=unet["history"][-1]["loss"], history=_history(unet["history"]),
        scores=_scores(report), **EXTENT,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
