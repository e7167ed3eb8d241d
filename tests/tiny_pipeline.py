"""A Stable Diffusion of a few thousand weights, for tests."""

import torch

from hopfield_cl.stable.pipelines import PipelineConfig

TINY = PipelineConfig(
    image_size=16,
    autoencoder_widths=(8, 16),
    unet_widths=(8, 16),
    heads=2,
    groups=4,
    text_width=8,
    text_layers=1,
    text_heads=2,
)
PARTS = ("vae", "text_encoder", "unet")


def weights(pipeline):
    return {
        f"{part}.{name}": value
        for part in PARTS
        for name, value in getattr(pipeline, part).state_dict().items()
    }


def same(first, second):
    one, other = weights(first), weights(second)
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
