"""Stable Diffusion: latent, text-conditioned, in the parts and the layout of diffusers.

The rooms inside, from the ground floor up:

``pipelines``
    A ``StableDiffusionPipeline`` with fresh weights, of any size; how it is saved, and how it or
    any Stable Diffusion 1.x is read, without pickle.
``prompts``
    Prompts as the conditions that the U-Net sees.
``latents``
    Images to latents and back; generation, reconstruction, and the network as a denoiser.
``pretraining``
    The small pipeline, from nothing: autoencoder, then text encoder and U-Net.
``finetuning``
    The U-Net of any pipeline on new images, whole or by LoRA, with replay.
``tasks``
    Captioned images in two tasks, and a judge of what an image shows.
"""

import importlib

from transformers.utils import logging


def _import_pipelines() -> None:
    """Import the pipelines of diffusers without a remark on image processors.

    They belong to the safety checker, which is not used here, and say that they miss torchvision.
    """
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        importlib.import_module("diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion")
    finally:
        logging.set_verbosity(before)


_import_pipelines()
