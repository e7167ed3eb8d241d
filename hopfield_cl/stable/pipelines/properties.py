"""What is required of a pipeline, and what can be asked of it: sizes, adapter, sampler."""

from __future__ import annotations

from diffusers import DDIMScheduler, StableDiffusionPipeline

from hopfield_cl import _checks


class PipelineError(ValueError):
    """A folder or a name does not give a pipeline that can be used here.

    Parameters
    ----------
    message : str
        What is wrong, in one sentence.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)


def check_pipeline(pipeline: StableDiffusionPipeline) -> None:
    """Require a Stable Diffusion 1.x pipeline.

    Parameters
    ----------
    pipeline : StableDiffusionPipeline
        What is checked.

    Raises
    ------
    TypeError
        If it is no ``StableDiffusionPipeline``.
    PipelineError
        If its U-Net does not predict the noise of its autoencoder's latents.
    """
    if not isinstance(pipeline, StableDiffusionPipeline):
        raise TypeError(
            f"pipeline must be a StableDiffusionPipeline, but is a {type(pipeline).__name__}."
        )
    latents, inputs = pipeline.vae.config.latent_channels, pipeline.unet.config.in_channels
    if latents != inputs:
        raise PipelineError(
            f"pipeline must have a U-Net that takes the autoencoder's {latents} channels and no "
            f"more, as that of Stable Diffusion 1.x, but it takes {inputs}."
        )
    prediction = pipeline.scheduler.config.get("prediction_type", "epsilon")
    if prediction != "epsilon":
        raise PipelineError(
            "pipeline must have a U-Net that predicts the noise, as that of Stable Diffusion 1.x, "
            f"but it predicts {prediction!r}."
        )


def has_adapter(pipeline: StableDiffusionPipeline) -> bool:
    """Whether the U-Net of a pipeline has a LoRA adapter attached.

    Parameters
    ----------
    pipeline : StableDiffusionPipeline
        The pipeline.

    Returns
    -------
    bool
    """
    return bool(getattr(pipeline.unet, "peft_config", None))


def ddim(
    pipeline: StableDiffusionPipeline, *, steps: int | None = None, **options: object
) -> DDIMScheduler:
    """Make the DDIM sampler of a pipeline's noise schedule.

    Parameters
    ----------
    pipeline : StableDiffusionPipeline
        Whose schedule is taken.
    steps : int, optional
        Denoising steps, at most as many as the schedule has noise levels. The sampler is then ready
        for them: its ``timesteps`` are set.
    **options
        What shall be otherwise than in its configuration.

    Returns
    -------
    DDIMScheduler
        It clips nothing: latents, unlike pixels, have no range.

    Raises
    ------
    TypeError, ValueError
        If ``steps`` is no such number.
    """
    unclipped = {"clip_sample": False, "thresholding": False}
    scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, **unclipped, **options)
    if steps is None:
        return scheduler
    levels = scheduler.config.num_train_timesteps
    _checks.integer_from(steps, "steps", 1)
    if steps > levels:
        raise ValueError(f"steps must be at most {levels}, the noise levels, but is {steps}.")
    if scheduler.config.timestep_spacing == "leading":
        # With so many steps that the offset of Stable Diffusion, 1, would lead beyond the last
        # noise level, diffusers does go there.
        room = levels - 1 - (steps - 1) * (levels // steps)
        scheduler.register_to_config(steps_offset=min(scheduler.config.steps_offset, room))
    scheduler.set_timesteps(steps)
    return scheduler


def image_size(pipeline: StableDiffusionPipeline) -> int:
    """Height and width of a pipeline's images, in pixels.

    Parameters
    ----------
    pipeline : StableDiffusionPipeline
        The pipeline; its U-Net decides, as an exchanged autoencoder may name another size.

    Returns
    -------
    int
    """
    halvings = len(pipeline.vae.config.block_out_channels) - 1
    return latent_shape(pipeline)[1] * 2**halvings


def latent_shape(pipeline: StableDiffusionPipeline) -> tuple[int, int, int]:
    """Shape of the latents of a pipeline's images.

    Parameters
    ----------
    pipeline : StableDiffusionPipeline
        The pipeline.

    Returns
    -------
    tuple of int
        Channels, height and width.
    """
    side = pipeline.unet.config.sample_size
    return pipeline.vae.config.latent_channels, side, side
