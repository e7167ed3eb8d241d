"""A Stable Diffusion of a few thousand weights, for tests."""

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
