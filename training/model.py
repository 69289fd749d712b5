"""The architecture: SDXL's parts at a small scale, all built with random weights."""

from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from scenes import SIDE

SCALING_FACTOR = 0.13025
CONTEXT = 77
TEXT_WIDTH = 96
POOLED_WIDTH = 128
TIME_IDS = [SIDE, SIDE, 0, 0, SIDE, SIDE]


def build_vae():
    """The autoencoder: 128 x 128 pixels to 16 x 16 x 4 latents."""
    return AutoencoderKL(
        sample_size=SIDE,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 32, 64),
        layers_per_block=1,
        norm_num_groups=2,
        latent_channels=4,
        scaling_factor=SCALING_FACTOR,
        force_upcast=False,
    )


def _text_config(tokenizer, activation):
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        projection_dim=POOLED_WIDTH,
        num_hidden_layers=3,
        num_attention_heads=3,
        max_position_embeddings=CONTEXT,
        hidden_act=activation,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )


def build_text_encoders(tokenizer):
    """Both text encoders, over the same vocabulary."""
    return (
        CLIPTextModel(_text_config(tokenizer, "quick_gelu")),
        CLIPTextModelWithProjection(_text_config(tokenizer, "gelu")),
    )


def build_unet():
    """The denoiser, with SDXL's conditioning on text, pooled text and sizes."""
    time_width = 32
    return UNet2DConditionModel(
        sample_size=SIDE // 8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(64, 96, 112),
        layers_per_block=1,
        transformer_layers_per_block=1,
        attention_head_dim=(2, 3, 4),
        norm_num_groups=8,
        cross_attention_dim=2 * TEXT_WIDTH,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=time_width,
        projection_class_embeddings_input_dim=POOLED_WIDTH + len(TIME_IDS) * time_width,
    )


def build_scheduler():
    """The noise schedule and the default sampler."""
    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.02,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
    )
