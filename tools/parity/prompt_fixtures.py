"""Write tests/parity/fixtures/prompts: what the reference libraries make of weighted and long prompts.

    prompts/cases.json          per case: the model folder, the prompt and how it is read
    prompts/expected.safetensors  per case `<case>.prompt_embeds` and so on: the states [L, C] times a fixed [C, 4]
                                matrix (see `projection`), and pooled vectors as they are; float32

Needs compel and pyparsing beside requirements.txt, and `--lpw FILE`: diffusers' examples/community/
lpw_stable_diffusion_xl.py, whose functions are run as they are. A1111's rules are written out below.
"""

import argparse
import json
import pathlib
import types

import torch
from compel import Compel, ReturnedEmbeddingsType
from safetensors.torch import save_file

import reference
from compare import ROOT

PIPELINES = ROOT / "tests" / "parity" / "fixtures" / "pipelines"
FOLDER = ROOT / "tests" / "parity" / "fixtures" / "prompts"
LONG = "a red circle, a (blue square:1.4) above, and [green] triangles of many kinds, " * 3 + "(tiny:0.6) ones BREAK end"
COMPEL_LONG = "a red circle, a (blue square)1.4 above. many green triangles of all kinds; " * 3 + "(tiny)0.6 ones"
CASES = {
    "a1111_sd1": dict(model="micro-sd1", prompt="a (red:1.3) circle [above] a ((blue)) square",
                      negative="(blurry:0.5)", weighting="a1111"),
    "a1111_long_sdxl": dict(model="micro-sdxl", prompt=LONG, negative="(ugly:1.2)", weighting="a1111"),
    "lpw_sdxl": dict(model="micro-sdxl", prompt="a (red:1.3) circle [above] a square", negative="a long, (dark:1.5) day",
                     weighting="lpw"),
    "lpw_long_sdxl": dict(model="micro-sdxl", prompt=LONG.replace(" BREAK", ""), negative="", weighting="lpw"),
    "compel_sd1": dict(model="micro-sd1", prompt="a red++ circle above a (blue square)0.6 and \"two words\"-",
                       negative="(dark)0.8 day+", weighting="compel", syntax="compel"),
    "compel_sdxl": dict(model="micro-sdxl", prompt="a red+++ circle (above)0.3", negative="a cat", weighting="compel",
                        syntax="compel"),
    "compel_long_sd1": dict(model="micro-sd1", prompt=COMPEL_LONG, negative="a cat", weighting="compel",
                            syntax="compel"),
    "compel_blend_sd1": dict(model="micro-sd1", prompt='("a red circle", "a blue++ square").blend(0.7, 0.4)',
                             negative="a cat", weighting="compel", syntax="compel"),
    "compel_and_sd1": dict(model="micro-sd1", prompt='("a red circle", "a blue square").and(1, 0.6)',
                            negative="a cat", weighting="compel", syntax="compel"),
}


def projection(width):
    channel = torch.arange(width, dtype=torch.float64)[:, None]
    column = torch.arange(4, dtype=torch.float64)[None, :]
    return torch.cos(channel * (column + 1) + column).to(torch.float32)


def encoders(pipeline):
    """(tokenizer, text encoder) of each, and how its states are taken."""
    if hasattr(pipeline, "text_encoder_2"):
        pairs = [(pipeline.tokenizer, pipeline.text_encoder), (pipeline.tokenizer_2, pipeline.text_encoder_2)]
        return pairs, lambda out: out.hidden_states[-2]
    return [(pipeline.tokenizer, pipeline.text_encoder)], lambda out: out.last_hidden_state


# A1111


def a1111_chunks(lpw, tokenizer, prompt):
    """Lists of 75 (id, weight): full chunks, but what follows a comma among the last 20 tokens moves on."""
    end = tokenizer.eos_token_id
    (comma,) = tokenizer(",", add_special_tokens=False).input_ids
    chunks, chunk, last_comma = [], [], None

    def close(rest):
        nonlocal chunk, last_comma
        chunks.append(chunk + [(end, 1.0)] * (75 - len(chunk)))
        chunk, last_comma = rest, None

    for text, weight in lpw.parse_prompt_attention(prompt):
        if text == "BREAK" and weight == -1:
            close([])
            continue
        for token in tokenizer(text, add_special_tokens=False).input_ids:
            if token == comma:
                last_comma = len(chunk)
            elif len(chunk) == 75 and last_comma is not None and 75 - last_comma <= 20:
                rest, chunk = chunk[last_comma + 1:], chunk[:last_comma + 1]
                close(rest)
            if len(chunk) == 75:
                close([])
            chunk.append((token, weight))
    if chunk or not chunks:
        close([])
    return chunks


def a1111_states(lpw, tokenizer, encoder, state, prompt, count):
    chunks = a1111_chunks(lpw, tokenizer, prompt)
    chunks += [[(tokenizer.eos_token_id, 1.0)] * 75] * (count - len(chunks))
    states, pooled = [], None
    for chunk in chunks:
        ids = [tokenizer.bos_token_id] + [token for token, _ in chunk] + [tokenizer.eos_token_id]
        first_end = ids.index(tokenizer.eos_token_id)
        ids[first_end + 1:] = [tokenizer.pad_token_id] * (len(ids) - first_end - 1)
        weights = torch.tensor([1.0] + [weight for _, weight in chunk] + [1.0]).reshape(1, -1, 1)
        out = encoder(torch.tensor([ids]), output_hidden_states=True)
        z = state(out)
        mean = z.mean()
        z = z * weights
        states.append(z * (mean / z.mean()))
        pooled = out[0] if pooled is None else pooled
    return torch.cat(states, dim=1), pooled


def a1111(pipeline, case, lpw):
    pairs, state = encoders(pipeline)
    sides = case["prompt"], case["negative"]
    count = max(len(a1111_chunks(lpw, tokenizer, side)) for tokenizer, _ in pairs for side in sides)
    answers = []
    for side in sides:
        outputs = [a1111_states(lpw, *pair, state, side, count) for pair in pairs]
        answers.append((torch.cat([out[0] for out in outputs], dim=-1), outputs[-1][1] if len(pairs) > 1 else None))
    return answers


# lpw


def lpw(pipeline, case, module):
    positive, negative, pooled, negative_pooled = module.get_weighted_text_embeddings_sdxl(
        pipeline, prompt=case["prompt"], neg_prompt=case["negative"], device=torch.device("cpu"))
    return [(positive, pooled), (negative, negative_pooled)]


# compel


def compel(pipeline, case, _):
    xl = hasattr(pipeline, "text_encoder_2")
    last = ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED if xl else \
        ReturnedEmbeddingsType.LAST_HIDDEN_STATES_NORMALIZED
    answers = []
    pairs, _ = encoders(pipeline)
    for side in (case["prompt"], case["negative"]):
        tensors, pooled = [], None
        for number, (tokenizer, encoder) in enumerate(pairs):
            wants_pooled = number == 1
            model = Compel(tokenizer=tokenizer, text_encoder=encoder, returned_embeddings_type=last,
                           requires_pooled=wants_pooled, truncate_long_prompts=False)
            answer = model(side)
            tensors.append(answer[0] if wants_pooled else answer)
            pooled = answer[1] if wants_pooled else None
            empty = model.conditioning_provider.empty_z
            tensors[-1] = (tensors[-1], empty)
        answers.append((tensors, pooled))
    length = max(t.shape[1] for tensors, _ in answers for t, _ in tensors)
    padded = []
    for tensors, pooled in answers:
        full = [torch.cat([t] + [empty] * ((length - t.shape[1]) // empty.shape[1]), dim=1) for t, empty in tensors]
        padded.append((torch.cat(full, dim=-1), pooled))
    return padded


def load_lpw(path):
    """The community file as a module; what it imports and we do not use may be missing here."""
    module = types.ModuleType("lpw")
    source = path.read_text()
    end = source.index("# -----------------------------------------------------", source.index("def get_weighted"))
    # The two ids of the usual vocabulary stand in the source; those of the tiny models are others.
    tokenizer = reference.load(PIPELINES / "micro-sdxl" / "model").tokenizer
    head = source[source.index("def parse_prompt_attention"):end].replace(
        "49406, 49407", f"{tokenizer.bos_token_id}, {tokenizer.eos_token_id}")
    exec("import torch\nfrom typing import *\nfrom transformers import CLIPTokenizer\n"
         "StableDiffusionXLPipeline = object\nclass TextualInversionLoaderMixin: pass\n"
         "class StableDiffusionXLLoraLoaderMixin: pass\n" + head, module.__dict__)
    return module


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lpw", type=pathlib.Path, required=True)
    module = load_lpw(parser.parse_args().lpw)
    makers = {"a1111": a1111, "lpw": lpw, "compel": compel}
    FOLDER.mkdir(parents=True, exist_ok=True)
    tensors, listed = {}, []
    for name, case in CASES.items():
        pipeline = reference.load(PIPELINES / case["model"] / "model")
        for side, (states, pooled) in zip(("", "negative_"), makers[case["weighting"]](pipeline, case, module)):
            tensors[f"{name}.{side}prompt_embeds"] = (states[0] @ projection(states.shape[-1])).contiguous()
            if pooled is not None:
                tensors[f"{name}.{side}pooled_prompt_embeds"] = pooled.clone().contiguous()
        listed.append(dict(syntax="a1111") | case | dict(name=name))
        print(name, tuple(states.shape))
    save_file(tensors, FOLDER / "expected.safetensors")
    (FOLDER / "cases.json").write_text(json.dumps(listed, indent=1) + "\n")
    print(sum(path.stat().st_size for path in FOLDER.iterdir()), "bytes")


if __name__ == "__main__":
    main()
