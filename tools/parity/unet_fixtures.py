"""Write the stored UNet cases: tiny random diffusers UNets with inputs and what diffusers makes of them.

    python tools/parity/unet_fixtures.py

Each folder tests/parity/fixtures/modules/unet_*/ gets config.json, weights.safetensors and tensors.safetensors
("even.*" and, where an odd latent size is of interest, "odd.*"). The fixtures are in git: run this only to change them.
"""

import pathlib
import shutil

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

ROOT = pathlib.Path(__file__).resolve().parents[2] / "tests/parity/fixtures/modules"

CROSS_DOWN, DOWN = "CrossAttnDownBlock2D", "DownBlock2D"
CROSS_UP, UP = "CrossAttnUpBlock2D", "UpBlock2D"
TWO = dict(
    sample_size=8,
    block_out_channels=(4, 8),
    down_block_types=(CROSS_DOWN, DOWN),
    up_block_types=(UP, CROSS_UP),
    layers_per_block=1,
    norm_num_groups=2,
    cross_attention_dim=6,
    attention_head_dim=2,
)
# No transformer at all: what matters here is the embedding.
ONE = dict(
    TWO,
    block_out_channels=(4,),
    down_block_types=(DOWN,),
    up_block_types=(UP,),
    mid_block_type="UNetMidBlock2D",
)

MODELS = {
    "sd1": dict(
        TWO,
        block_out_channels=(4, 4, 8),
        down_block_types=(CROSS_DOWN, CROSS_DOWN, DOWN),
        up_block_types=(UP, CROSS_UP, CROSS_UP),
        attention_head_dim=[2, 4, 2],
        layers_per_block=2,
    ),
    "sd2": dict(
        TWO, attention_head_dim=[1, 4], use_linear_projection=True, upcast_attention=True
    ),
    "sdxl": dict(
        TWO,
        block_out_channels=(4, 4),
        down_block_types=(DOWN, CROSS_DOWN),
        up_block_types=(CROSS_UP, UP),
        layers_per_block=[1, 2],
        transformer_layers_per_block=[1, 2],
        attention_head_dim=[2, 1],
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=5 + 6 * 4,
    ),
    "refiner": dict(
        TWO,
        block_out_channels=(4, 4),
        down_block_types=(DOWN, CROSS_DOWN),
        up_block_types=(CROSS_UP, UP),
        transformer_layers_per_block=2,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=5 + 5 * 4,
    ),
    "asymmetric": dict(
        TWO,
        down_block_types=(CROSS_DOWN, CROSS_DOWN),
        up_block_types=(CROSS_UP, CROSS_UP),
        transformer_layers_per_block=[[2], [1]],
        reverse_transformer_layers_per_block=[[1, 0], [0, 2]],
        mid_block_type=None,
        use_linear_projection=True,
    ),
    "inpaint": dict(TWO, in_channels=9),
    "options": dict(
        TWO,
        act_fn="mish",
        center_input_sample=True,
        conv_in_kernel=5,
        conv_out_kernel=1,
        cross_attention_dim=(6, 6),
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        mid_block_scale_factor=1.5,
        norm_eps=1e-3,
        out_channels=3,
        resnet_time_scale_shift="scale_shift",
        time_embedding_dim=10,
    ),
    "class_table": dict(
        TWO, in_channels=7, num_class_embeds=10, only_cross_attention=[True, False]
    ),
    "class_timestep": dict(
        ONE, class_embed_type="timestep", time_cond_proj_dim=3
    ),
    "class_identity": dict(ONE, class_embed_type="identity"),
    "class_projection": dict(
        ONE, class_embed_type="projection", projection_class_embeddings_input_dim=3
    ),
    "class_simple_projection": dict(
        ONE, class_embed_type="simple_projection", projection_class_embeddings_input_dim=3
    ),
}
ODD = ("sd1", "sdxl", "options")


def randomise(model, generator):
    """Weights that make every layer matter: default initialisation leaves norms at 1 and 0."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            else:
                parameter.copy_(0.2 * noise + (1.0 if "norm" in name and "weight" in name else 0.0))


def inputs_of(config, size, generator):
    def normal(*shape):
        return torch.randn(shape, generator=generator)

    inputs = dict(
        sample=normal(2, config.in_channels, *size),
        timesteps=torch.tensor([981.0, 41.5]),
        encoder_hidden_states=normal(2, 7, 6),
    )
    if config.addition_embed_type == "text_time":
        ids = (config.projection_class_embeddings_input_dim - 5) // config.addition_time_embed_dim
        inputs["text_embeds"] = normal(2, 5)
        inputs["time_ids"] = torch.tensor([[64.0, 48.0, 0.0, 8.0, 64.0, 96.0], [32.0, 64.0, 4.0, 0.0, 2.5, 6.0]])[:, :ids]
    if config.time_cond_proj_dim is not None:
        inputs["timestep_cond"] = normal(2, config.time_cond_proj_dim)
    if config.num_class_embeds is not None:
        inputs["class_labels"] = torch.tensor([7, 2])
    elif config.class_embed_type == "timestep":
        inputs["class_labels"] = torch.tensor([20.0, 350.0])
    elif config.class_embed_type == "identity":
        inputs["class_labels"] = normal(2, 4 * config.block_out_channels[0])
    elif config.class_embed_type is not None:
        inputs["class_labels"] = normal(2, config.projection_class_embeddings_input_dim)
    return inputs


@torch.no_grad()
def run(model, inputs):
    added = {key: inputs[key] for key in ("text_embeds", "time_ids") if key in inputs}
    return model(
        inputs["sample"],
        inputs["timesteps"],
        inputs["encoder_hidden_states"],
        class_labels=inputs.get("class_labels"),
        timestep_cond=inputs.get("timestep_cond"),
        added_cond_kwargs=added or None,
    ).sample


def write(name, settings, seed):
    generator = torch.Generator().manual_seed(seed)
    model = UNet2DConditionModel(**settings).eval()
    randomise(model, generator)
    folder = ROOT / f"unet_{name}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model.save_config(folder)
    save_file(model.state_dict(), folder / "weights.safetensors")
    tensors = {}
    for case, size in {"even": (8, 6), "odd": (9, 13)}.items():
        if case == "odd" and name not in ODD:
            continue
        inputs = inputs_of(model.config, size, generator)
        output = run(model, inputs)
        assert output.isfinite().all()
        tensors |= {f"{case}.{key}": value for key, value in inputs.items()}
        tensors[f"{case}.output"] = output
        print(f"{folder.name} {case}: output std {output.std():.3f}")
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "tensors.safetensors")


if __name__ == "__main__":
    for number, (model_name, model_settings) in enumerate(MODELS.items()):
        write(model_name, model_settings, number)
