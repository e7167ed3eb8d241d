"""What a Stable Diffusion pipeline is made of, in numbers."""

from __future__ import annotations

from dataclasses import dataclass

from hopfield_cl import _checks


@dataclass(frozen=True)
class PipelineConfig:
    """What a Stable Diffusion pipeline is made of.

    Attributes
    ----------
    image_size : int
        Height and width of the images, in pixels.
    autoencoder_widths : tuple of int
        Channels of the autoencoder at each resolution, each half the one before; the latents have
        the last one.
    autoencoder_layers : int
        Residual blocks of the encoder at each resolution.
    latent_channels : int
        Channels of the latents.
    unet_widths : tuple of int
        Channels of the U-Net at each resolution; all but the last have cross-attention.
    unet_layers : int
        Residual blocks of the U-Net at each resolution.
    heads : int
        Attention heads of the U-Net.
    groups : int
        Groups of the group normalisation, which all widths are multiples of.
    text_width, text_layers, text_heads : int
        Width, layers and attention heads of the text encoder.
    text_length : int
        Tokens of a prompt, start and end included.
    vocabulary : int
        Rows of the text encoder's table of tokens; at least as many as the tokenizer has.
    """

    image_size: int = 64
    autoencoder_widths: tuple[int, ...] = (8, 16, 32)
    autoencoder_layers: int = 1
    latent_channels: int = 4
    unet_widths: tuple[int, ...] = (32, 64, 128)
    unet_layers: int = 1
    heads: int = 2
    groups: int = 8
    text_width: int = 64
    text_layers: int = 2
    text_heads: int = 4
    text_length: int = 24
    vocabulary: int = 640

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not name.endswith("_widths"):
                _checks.integer_from(value, name, 1)
                continue
            if not isinstance(value, tuple):
                raise TypeError(f"{name} must be a tuple, but is {value!r}.")
            if len(value) < 2:
                raise ValueError(f"{name} must hold at least two widths, but is {value}.")
            for width in value:
                _checks.integer_from(width, name, 1)
                if width % self.groups:
                    raise ValueError(
                        f"{name} must be multiples of groups, {self.groups}, but one is {width}."
                    )
        halvings = len(self.autoencoder_widths) + len(self.unet_widths) - 2
        if self.image_size % 2**halvings:
            raise ValueError(
                f"image_size must be a multiple of {2**halvings}, which the resolutions ask for, "
                f"but is {self.image_size}."
            )
        for name, width, heads in (
            ("heads", self.unet_widths, self.heads),
            ("text_heads", (self.text_width,), self.text_heads),
        ):
            if any(one % heads for one in width):
                raise ValueError(f"{name} must divide {width}, but is {heads}.")

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the latents of an image."""
        side = self.image_size // 2 ** (len(self.autoencoder_widths) - 1)
        return self.latent_channels, side, side


V1_5 = PipelineConfig(
    image_size=512,
    autoencoder_widths=(128, 256, 512, 512),
    autoencoder_layers=2,
    unet_widths=(320, 640, 1280, 1280),
    unet_layers=2,
    heads=8,
    groups=32,
    text_width=768,
    text_layers=12,
    text_heads=12,
    text_length=77,
    vocabulary=49408,
)
"""The sizes of Stable Diffusion v1.5 (Rombach et al. 2022)."""
