"""A diffusion model: a U-Net of diffusers, its noise schedule, and the images it is made for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import DDPMScheduler, UNet2DModel
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from hopfield_cl import _checks

_PREDICTIONS = ("epsilon", "v_prediction", "sample")
# Lowest share of noise that the loss of a clean-image network is divided by.
_LEAST_NOISE = 0.02
_SCHEDULES = ("squaredcos_cap_v2", "linear", "scaled_linear")


@dataclass(frozen=True)
class ModelConfig:
    """What a pixel-space diffusion model is made of.

    Attributes
    ----------
    image_size : int
        Height and width of the images, in pixels.
    channels : int
        1 for grey images, 3 for colour.
    patch : int
        Squares of ``patch`` × ``patch`` pixels are given to the U-Net as channels of one position.
        It only reorders the pixels, so white noise stays white; it divides the work by about its
        square. 1 leaves the pixels as they are.
    widths : tuple of int
        Channels of the U-Net at each resolution, each half the one before; multiples of ``groups``.
    layers : int
        Residual blocks at each resolution.
    attention : tuple of int
        Resolutions, counted from 0, the finest, that have self-attention besides the middle.
    groups : int
        Groups of the group normalisation.
    prediction : {"epsilon", "v_prediction", "sample"}
        What the network predicts: the noise, the velocity, or the clean image. A small network that
        sees large patches learns the clean image best, which is smooth, as noise is not (Li & He
        2025).
    schedule : {"squaredcos_cap_v2", "linear", "scaled_linear"}
        Noise schedule, as diffusers names it.
    train_timesteps : int
        Number of noise levels.
    """

    image_size: int = 32
    channels: int = 1
    patch: int = 4
    widths: tuple[int, ...] = (32, 64)
    layers: int = 1
    attention: tuple[int, ...] = ()
    groups: int = 8
    prediction: str = "sample"
    schedule: str = "squaredcos_cap_v2"
    train_timesteps: int = 1000

    def __post_init__(self) -> None:
        for name in ("image_size", "channels", "patch", "layers", "groups", "train_timesteps"):
            _checks.integer_from(getattr(self, name), name, 1)
        for name in ("widths", "attention"):
            if not isinstance(getattr(self, name), tuple):
                raise TypeError(f"{name} must be a tuple, but is {getattr(self, name)!r}.")
        if not self.widths:
            raise ValueError("widths must hold at least one width, but is empty.")
        for width in self.widths:
            _checks.integer_from(width, "widths", 1)
            if width % self.groups:
                raise ValueError(
                    f"widths must be multiples of groups, {self.groups}, but one is {width}."
                )
        for level in self.attention:
            _checks.integer_from(level, "attention", 0)
            if level >= len(self.widths):
                raise ValueError(
                    f"attention must name resolutions below {len(self.widths)}, the number of "
                    f"widths, but names {level}."
                )
        smallest = self.patch * 2 ** (len(self.widths) - 1)
        if self.image_size % smallest:
            raise ValueError(
                f"image_size must be a multiple of {smallest}, which the patches and the "
                f"{len(self.widths)} resolutions ask for, but is {self.image_size}."
            )
        for name, known in (("prediction", _PREDICTIONS), ("schedule", _SCHEDULES)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} must be one of {', '.join(known)}, but is {getattr(self, name)!r}."
                )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.channels, self.image_size, self.image_size


class DiffusionModel(nn.Module):
    """A U-Net with its noise schedule.

    Parameters
    ----------
    config : ModelConfig
        What it is made of. Its weights are drawn from PyTorch's default generator.

    Attributes
    ----------
    unet : diffusers.UNet2DModel
        The network; it sees the images in patches.
    scheduler : diffusers.DDPMScheduler
        The noise schedule.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        levels = range(len(config.widths))
        down = tuple("AttnDownBlock2D" if i in config.attention else "DownBlock2D" for i in levels)
        up = tuple("AttnUpBlock2D" if i in config.attention else "UpBlock2D" for i in levels)
        self.unet = UNet2DModel(
            sample_size=config.image_size // config.patch,
            in_channels=config.channels * config.patch**2,
            out_channels=config.channels * config.patch**2,
            layers_per_block=config.layers,
            block_out_channels=config.widths,
            down_block_types=down,
            up_block_types=up[::-1],
            norm_num_groups=config.groups,
            attention_head_dim=min(config.groups * 2, config.widths[-1]),
        )
        self.scheduler = DDPMScheduler(
            num_train_timesteps=config.train_timesteps,
            beta_schedule=config.schedule,
            prediction_type=config.prediction,
        )

    def forward(
        self, noisy: Float[Tensor, "B C H W"], timesteps: Tensor
    ) -> Float[Tensor, "B C H W"]:
        """Predict noise, velocity or clean image, as the configuration says.

        Parameters
        ----------
        noisy : Tensor, shape (B, C, H, W)
            Noisy images x_t = α_t x_0 + s_t ε.
        timesteps : Tensor, shape (B,) or ()
            Noise times t; fractions stand between two levels.

        Returns
        -------
        Tensor, shape (B, C, H, W)
        """
        patch = self.config.patch
        predicted = self.unet(pixel_unshuffle(noisy, patch), timesteps, return_dict=False)[0]
        return pixel_shuffle(predicted, patch)

    def target(
        self, clean: Float[Tensor, "B C H W"], noise: Float[Tensor, "B C H W"], timesteps: Tensor
    ) -> Float[Tensor, "B C H W"]:
        """What :meth:`forward` should have predicted.

        Parameters
        ----------
        clean, noise : Tensor, shape (B, C, H, W)
            Clean images x_0 and the noise ε that was added.
        timesteps : Tensor of int64, shape (B,)
            Noise times t.

        Returns
        -------
        Tensor, shape (B, C, H, W)
            ε, the velocity α_t ε − s_t x_0, or x_0.
        """
        if self.config.prediction == "epsilon":
            return noise
        if self.config.prediction == "sample":
            return clean
        return self.scheduler.get_velocity(clean, noise, timesteps)

    def loss_weight(self, timesteps: Tensor) -> Float[Tensor, " B"]:
        """Weight of the squared error at each time.

        Parameters
        ----------
        timesteps : Tensor of int64, shape (B,)
            Noise times t.

        Returns
        -------
        Tensor of float32, shape (B,)
            1 if the network predicts noise or velocity. If it predicts the clean image, 1/s_t² (50
            at most), which is the same as the error of the velocity.

        References
        ----------
        Salimans & Ho (2022), *Progressive Distillation for Fast Sampling of Diffusion Models*.
        """
        if self.config.prediction != "sample":
            return torch.ones_like(timesteps, dtype=torch.float32)
        noise_share = 1 - self.scheduler.alphas_cumprod.to(timesteps.device)[timesteps]
        return 1 / noise_share.clamp(min=_LEAST_NOISE)


def new_model(config: ModelConfig, *, seed: int) -> DiffusionModel:
    """Draw a model with fresh weights.

    Parameters
    ----------
    config : ModelConfig
        What it is made of.
    seed : int
        Seed of its weights; PyTorch's default generator is left as it was.

    Returns
    -------
    DiffusionModel
        On the CPU, in float32.

    Raises
    ------
    TypeError, ValueError
        If ``seed`` is no integer from 0.
    """
    _checks.integer_from(seed, "seed", 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DiffusionModel(config)
