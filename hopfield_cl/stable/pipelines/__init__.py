"""Stable Diffusion pipelines: built from a configuration, saved, and read without pickle.

The small pipeline of the book and Stable Diffusion v1.5 are the same parts at two sizes, each given
by a :class:`PipelineConfig`: a tokenizer, a CLIP text encoder, an autoencoder, a U-Net with
cross-attention, and a noise schedule.

``config``
    The sizes of a pipeline's parts, and those of Stable Diffusion v1.5.
``tokenizer``
    A tokenizer in which each word of the scenes' captions is one token.
``building``
    A pipeline with fresh weights.
``properties``
    What is required of a pipeline; its sizes, its adapter, its sampler.
``saving``
    A pipeline in a folder, whose files are listed with their hashes and compared with the list.
``loading``
    A pipeline from a folder or from the hub, without pickle.
"""

from hopfield_cl.stable.pipelines.building import new_pipeline
from hopfield_cl.stable.pipelines.config import V1_5, PipelineConfig
from hopfield_cl.stable.pipelines.loading import SMALL_SD, check_source, load_pipeline
from hopfield_cl.stable.pipelines.properties import (
    PipelineError,
    check_pipeline,
    ddim,
    has_adapter,
    image_size,
    latent_shape,
)
from hopfield_cl.stable.pipelines.saving import save_pipeline, verify_pipeline
from hopfield_cl.stable.pipelines.tokenizer import new_tokenizer

__all__ = [
    "SMALL_SD",
    "V1_5",
    "PipelineConfig",
    "PipelineError",
    "check_pipeline",
    "check_source",
    "ddim",
    "has_adapter",
    "image_size",
    "latent_shape",
    "load_pipeline",
    "new_pipeline",
    "new_tokenizer",
    "save_pipeline",
    "verify_pipeline",
]
