"""Writes the module fixtures of tests/parity/fixtures/modules: tiny random models of the reference with inputs and outputs.

    python tools/parity/module_fixtures.py [CASE ...]

Each case is a folder: config.json, weights.safetensors (float32) and tensors.safetensors (inputs and expectations).
"""

import json
import pathlib
import sys

import diffusers
import torch
import transformers
from safetensors.torch import save_file

ROOT = pathlib.Path(__file__).resolve().parents[2] / "tests/parity/fixtures/modules"


def randomise(model, seed):
    """Biases and norms away from their neutral start, so that a forgotten one shows."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        scale = 0.2 if parameter.dim() == 1 else 1.2 / parameter[0].numel() ** 0.5
        start = parameter.data if parameter.dim() == 1 else 0
        parameter.data = start + scale * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def write(case, config, weights, tensors):
    folder = ROOT / case
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    for name, values in (("weights", weights), ("tensors", tensors)):
        save_file({key: value.contiguous().clone() for key, value in values.items()}, folder / f"{name}.safetensors")


def clip_config(**changes):
    return transformers.CLIPTextConfig(
        **{
            "vocab_size": 60,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "max_position_embeddings": 12,
            "projection_dim": 10,
            "bos_token_id": 58,
            "eos_token_id": 59,
            "pad_token_id": 59,
            **changes,
        }
    )


def clip_case(case, config, ids, projection, seed, rename=None, generic_keys=False):
    kind = transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel
    config._attn_implementation = "eager"
    model = randomise(kind(config), seed)
    ids = torch.tensor(ids)
    with torch.no_grad():
        out = model(ids, output_hidden_states=True)
    tensors = {"ids": ids, "last_hidden_state": out.last_hidden_state}
    tensors["pooled"] = out.text_embeds if projection else out.pooler_output
    tensors |= {f"hidden_states.{i}": h for i, h in enumerate(out.hidden_states)}
    weights = model.state_dict()
    if rename:
        weights = rename(weights, config)
    written = json.loads(config.to_json_string(use_diff=not generic_keys))
    if generic_keys:
        written |= {"torch_dtype": "float32", "pruned_heads": {}, "tie_word_embeddings": True, "top_k": 50}
    write(case, written, weights, tensors)


def as_transformers_4(weights, config):
    """The names that transformers 4 gave a CLIPTextModel, with the buffer that it once saved."""
    renamed = {name if name.startswith("text_model.") else f"text_model.{name}": t for name, t in weights.items()}
    renamed["text_model.embeddings.position_ids"] = torch.arange(config.max_position_embeddings)[None]
    return renamed


def clip_cases():
    first_eos = [[58, 5, 17, 59, 59, 59, 59], [58, 40, 2, 3, 4, 59, 59]]
    highest_id = [[58, 5, 17, 59, 1, 1, 1, 1], [58, 40, 2, 3, 59, 1, 1, 1], [58, 2, 59, 1, 1, 1, 1, 1]]
    yield "clip_quick_gelu", lambda case: clip_case(case, clip_config(), first_eos, False, 1)
    yield "clip_transformers_4", lambda case: clip_case(
        case, clip_config(eos_token_id=2, pad_token_id=1), highest_id, False, 2, as_transformers_4, generic_keys=True
    )
    yield "clip_projection_gelu", lambda case: clip_case(
        case, clip_config(hidden_act="gelu", layer_norm_eps=1e-3), first_eos, True, 3
    )
    # A token added after the end token: the new rule must not take the highest id.
    yield "clip_projection_first_eos", lambda case: clip_case(
        case, clip_config(hidden_act="gelu_new", eos_token_id=50), [[49, 58, 17, 50, 50], [49, 50, 3, 59, 50]], True, 4
    )


def vae_config(blocks, **changes):
    return {
        "block_out_channels": list(blocks),
        "down_block_types": ["DownEncoderBlock2D"] * len(blocks),
        "up_block_types": ["UpDecoderBlock2D"] * len(blocks),
        "layers_per_block": 1,
        "norm_num_groups": 3,
        "latent_channels": 4,
        "sample_size": 16,
        **changes,
    }


def vae_case(case, config, seed, latent_size, image_size, batch=1, rename=None, tiling=False):
    model = randomise(diffusers.AutoencoderKL(**config), seed)
    generator = torch.Generator().manual_seed(seed + 100)
    z = torch.randn(batch, model.config.latent_channels, *latent_size, generator=generator)
    x = torch.rand(batch, model.config.in_channels, *image_size, generator=generator) * 2 - 1
    if tiling:
        model.enable_tiling()
    with torch.no_grad():
        posterior = model.encode(x).latent_dist
        tensors = {"z": z, "decoded": model.decode(z).sample, "x": x}
        tensors |= {"mean": posterior.mean, "logvar": posterior.logvar}
    weights = model.state_dict()
    if rename:
        weights = rename(weights)
    write(case, config, weights, tensors)


def with_old_attention(weights):
    """Attention names from before diffusers 0.17; the matrices of one half as 1x1 convolutions."""
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name, tensor in weights.items():
        if ".attentions." in name:
            for new_part, old_part in old.items():
                name = name.replace(f".{new_part}.", f".{old_part}.")
            if name.startswith("decoder.") and tensor.dim() == 2:
                tensor = tensor[:, :, None, None]
        renamed[name] = tensor
    return renamed


def vae_cases():
    yield "vae_odd_groups", lambda case: vae_case(
        case, vae_config((6, 9), layers_per_block=2, scaling_factor=0.13025), 1, (5, 3), (13, 9), batch=2
    )
    yield "vae_no_quant_16_latents", lambda case: vae_case(
        case,
        vae_config(
            (6, 6),
            latent_channels=16,
            use_quant_conv=False,
            use_post_quant_conv=False,
            shift_factor=0.1159,
            force_upcast=False,
        ),
        2,
        (4, 6),
        (12, 8),
    )
    yield "vae_no_mid_attention", lambda case: vae_case(
        case,
        vae_config(
            (6, 6),
            mid_block_add_attention=False,
            act_fn="gelu",
            in_channels=1,
            out_channels=2,
            latents_mean=[0.1, -0.2, 0.3, 0.0],
            latents_std=[1.0, 2.0, 0.5, 1.5],
        ),
        3,
        (3, 4),
        (8, 10),
    )
    yield "vae_old_attention_names", lambda case: vae_case(
        case, vae_config((3, 6)), 4, (4, 4), (8, 8), rename=with_old_attention
    )
    yield "vae_tiling", lambda case: vae_case(
        case, vae_config((3, 3)), 5, (11, 18), (27, 34), batch=1, tiling=True
    )


def main(wanted):
    for case, make in [*clip_cases(), *vae_cases()]:
        if not wanted or case in wanted:
            make(case)
            print(case, sum(f.stat().st_size for f in (ROOT / case).iterdir()), "bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
