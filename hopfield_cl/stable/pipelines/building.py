"""A pipeline with fresh weights, part by part."""

from __future__ import annotations

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from hopfield_cl import _checks
from hopfield_cl.stable.pipelines.config import PipelineConfig
from hopfield_cl.stable.pipelines.tokenizer import new_tokenizer


def new_pipeline(config: PipelineConfig, *, seed: int) -> StableDiffusionPipeline:
    """Build a pipeline with fresh weights.

    Parameters
    ----------
    config : PipelineConfig
        What it is made of.
    seed : int
        Seed of its weights; PyTorch's default generator is left as it was.

    Returns
    -------
    StableDiffusionPipeline
        On the CPU, in float32 and evaluation mode, with the tokenizer of the scenes' words and the
        noise schedule of Stable Diffusion 1.x.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of its kind, or the vocabulary is smaller than the tokenizer's.

    References
    ----------
    Rombach et al. (2022), *High-Resolution Image Synthesis with Latent Diffusion Models*.
    """
    if not isinstance(config, PipelineConfig):
        raise TypeError(f"config must be a PipelineConfig, but is a {type(config).__name__}.")
    _checks.integer_from(seed, "seed", 0)
    tokenizer = new_tokenizer(config.text_length)
    if config.vocabulary < len(tokenizer):
        raise ValueError(
            f"vocabulary must be at least {len(tokenizer)}, the size of the tokenizer, but is "
            f"{config.vocabulary}."
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        parts = (_autoencoder(config), _text_encoder(config, tokenizer), _unet(config))
    for part in parts:
        part.eval()
    vae, text_encoder, unet = parts
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _autoencoder(config: PipelineConfig) -> AutoencoderKL:
    levels = len(config.autoencoder_widths)
    return AutoencoderKL(
        sample_size=config.image_size,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.autoencoder_widths,
        layers_per_block=config.autoencoder_layers,
        latent_channels=config.latent_channels,
        norm_num_groups=config.groups,
    )


def _text_encoder(config: PipelineConfig, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=config.vocabulary,
            hidden_size=config.text_width,
            intermediate_size=4 * config.text_width,
            projection_dim=config.text_width,
            num_hidden_layers=config.text_layers,
            num_attention_heads=config.text_heads,
            max_position_embeddings=config.text_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _unet(config: PipelineConfig) -> UNet2DConditionModel:
    attended = len(config.unet_widths) - 1
    return UNet2DConditionModel(
        sample_size=config.latent_shape[1],
        in_channels=config.latent_channels,
        out_channels=config.latent_channels,
        down_block_types=("CrossAttnDownBlock2D",) * attended + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * attended,
        block_out_channels=config.unet_widths,
        layers_per_block=config.unet_layers,
        cross_attention_dim=config.text_width,
        attention_head_dim=config.heads,  # diffusers calls the number of heads so
        norm_num_groups=config.groups,
    )


def _scheduler() -> DDIMScheduler:
    """The schedule of Stable Diffusion 1.x."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
