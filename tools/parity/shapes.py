"""Configurations of the models that the parity tools build: tiny ones of every family, and the full-size shapes.

A shape is a dict: `pipeline` (diffusers class), `unet`, `vae`, `text_encoder`, optionally `text_encoder_2` (keyword
arguments of their classes), `scheduler` (class name, keyword arguments) and `flags` (booleans of model_index.json).
"""

BETAS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)
PNDM = ("PNDMScheduler", dict(BETAS, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1))
DDIM_V = ("DDIMScheduler", dict(BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1,
                                prediction_type="v_prediction"))
EULER = ("EulerDiscreteScheduler", dict(BETAS, steps_offset=1, timestep_spacing="leading"))


def clip(hidden, layers, heads, vocab=None, act="quick_gelu", projection=None, mlp=4, **extra):
    config = dict(hidden_size=hidden, intermediate_size=mlp * hidden, num_hidden_layers=layers,
                  num_attention_heads=heads, hidden_act=act, projection_dim=projection or hidden,
                  max_position_embeddings=77, **extra)
    if vocab:
        config["vocab_size"] = vocab
    return config


def vae(channels, groups, layers=1, scaling=0.18215, sample=64, **extra):
    blocks = len(channels)
    return dict(block_out_channels=channels, layers_per_block=layers, latent_channels=4, norm_num_groups=groups,
                down_block_types=["DownEncoderBlock2D"] * blocks, up_block_types=["UpDecoderBlock2D"] * blocks,
                sample_size=sample, scaling_factor=scaling, **extra)


def unet(down, channels, cross, **extra):
    """`down` spells the blocks: `c` with cross-attention, `d` without."""
    names = {"c": ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D"), "d": ("DownBlock2D", "UpBlock2D")}
    config = dict(in_channels=4, out_channels=4, block_out_channels=channels, cross_attention_dim=cross,
                  down_block_types=[names[b][0] for b in down], up_block_types=[names[b][1] for b in reversed(down)])
    config.update(extra)
    return config


def text_time(pooled, time_dim):
    return dict(addition_embed_type="text_time", addition_time_embed_dim=time_dim,
                projection_class_embeddings_input_dim=6 * time_dim + pooled)


SHAPES = {
    "tiny-sd1": dict(
        pipeline="StableDiffusionPipeline", scheduler=PNDM,
        unet=unet("ccd", (16, 32, 32), 32, layers_per_block=1, attention_head_dim=4, norm_num_groups=8,
                  sample_size=8),
        vae=vae((8, 16, 16, 16), 4), text_encoder=clip(32, 3, 4, eos_token_id=2)),
    "tiny-sd1-wide": dict(
        pipeline="StableDiffusionPipeline", scheduler=PNDM,
        unet=unet("cccd", (32, 64, 64, 96), 48, layers_per_block=2, attention_head_dim=8, norm_num_groups=16,
                  sample_size=16),
        vae=vae((16, 32, 32, 32), 8, layers=2), text_encoder=clip(48, 4, 4)),
    "tiny-sd2": dict(
        pipeline="StableDiffusionPipeline", scheduler=DDIM_V,
        unet=unet("ccd", (16, 32, 48), 40, layers_per_block=1, attention_head_dim=[2, 4, 6], norm_num_groups=8,
                  use_linear_projection=True, upcast_attention=True, sample_size=8),
        vae=vae((8, 16, 16, 16), 4), text_encoder=clip(40, 3, 4, act="gelu")),
    "tiny-sdxl": dict(
        pipeline="StableDiffusionXLPipeline", scheduler=EULER, flags=dict(force_zeros_for_empty_prompt=True),
        unet=unet("dcc", (16, 32, 48), 72, layers_per_block=1, attention_head_dim=[2, 4, 6], norm_num_groups=8,
                  transformer_layers_per_block=[1, 2, 3], use_linear_projection=True, sample_size=8,
                  **text_time(40, 8)),
        vae=vae((8, 16, 16, 16), 4, scaling=0.13025, force_upcast=True),
        text_encoder=clip(32, 3, 4, eos_token_id=2),
        text_encoder_2=clip(40, 4, 5, act="gelu", projection=40, eos_token_id=2)),
    "tiny-sdxl-deep": dict(
        pipeline="StableDiffusionXLPipeline", scheduler=EULER, flags=dict(force_zeros_for_empty_prompt=False),
        unet=unet("cdc", (24, 32, 64), 80, layers_per_block=2, attention_head_dim=[3, 4, 4], norm_num_groups=8,
                  transformer_layers_per_block=[2, 1, 4], use_linear_projection=True, sample_size=16,
                  **text_time(24, 16)),
        vae=vae((16, 16, 32, 32), 8, layers=2, scaling=0.13025, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip(32, 2, 2), text_encoder_2=clip(48, 3, 6, act="gelu", projection=24)),
    "tiny-sd1-inpaint": dict(
        pipeline="StableDiffusionInpaintPipeline", scheduler=PNDM,
        unet=unet("ccd", (16, 32, 32), 32, in_channels=9, layers_per_block=1, attention_head_dim=4,
                  norm_num_groups=8, sample_size=8),
        vae=vae((8, 16, 16, 16), 4), text_encoder=clip(32, 3, 4, eos_token_id=2)),
    # As small as a network with every kind of layer can be: these are stored in the repository.
    "micro-sd1": dict(
        pipeline="StableDiffusionPipeline", scheduler=PNDM,
        unet=unet("cd", (8, 16), 16, layers_per_block=1, attention_head_dim=2, norm_num_groups=4, sample_size=8),
        vae=vae((4, 8, 8, 8), 2), text_encoder=clip(16, 2, 2, mlp=2, eos_token_id=2)),
    "micro-sd2": dict(
        pipeline="StableDiffusionPipeline", scheduler=DDIM_V,
        unet=unet("cd", (8, 16), 16, layers_per_block=1, attention_head_dim=[1, 2], norm_num_groups=4,
                  use_linear_projection=True, sample_size=8),
        vae=vae((4, 8, 8, 8), 2), text_encoder=clip(16, 2, 2, act="gelu", mlp=2)),
    "micro-sdxl": dict(
        pipeline="StableDiffusionXLPipeline", scheduler=EULER, flags=dict(force_zeros_for_empty_prompt=True),
        unet=unet("dc", (8, 16), 28, layers_per_block=1, attention_head_dim=[2, 4], norm_num_groups=4,
                  transformer_layers_per_block=[1, 2], use_linear_projection=True, sample_size=8,
                  **text_time(12, 4)),
        vae=vae((4, 8, 8, 8), 2, scaling=0.13025), text_encoder=clip(16, 2, 2, mlp=2, eos_token_id=2),
        text_encoder_2=clip(12, 2, 2, act="gelu", projection=12, mlp=2)),
    # Full size, for benchmarks.
    "sd15": dict(
        pipeline="StableDiffusionPipeline", scheduler=PNDM,
        unet=unet("cccd", (320, 640, 1280, 1280), 768, layers_per_block=2, attention_head_dim=8, sample_size=64),
        vae=vae((128, 256, 512, 512), 32, layers=2, sample=512),
        text_encoder=clip(768, 12, 12, vocab=49408, eos_token_id=2)),
    "sdxl": dict(
        pipeline="StableDiffusionXLPipeline", scheduler=EULER, flags=dict(force_zeros_for_empty_prompt=True),
        unet=unet("dcc", (320, 640, 1280), 2048, layers_per_block=2, attention_head_dim=[5, 10, 20],
                  transformer_layers_per_block=[1, 2, 10], use_linear_projection=True, sample_size=128,
                  **text_time(1280, 256)),
        vae=vae((128, 256, 512, 512), 32, layers=2, scaling=0.13025, sample=1024, force_upcast=True),
        text_encoder=clip(768, 12, 12, vocab=49408, eos_token_id=2),
        text_encoder_2=clip(1280, 32, 20, vocab=49408, act="gelu", projection=1280, eos_token_id=2)),
}
