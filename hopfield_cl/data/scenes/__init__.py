"""Captioned scenes of known density, and a judge of what an image shows.

``factors``
    The six factors that say what a scene shows, and the jitter that says how.
``density``
    How likely each combination of factors is.
``outlines``
    The shapes and the textures, as distances to their edges.
``drawing``
    Factors and jitter to images.
``wording``
    Factors to captions and back.
``sampling``
    Scenes drawn from the density with all that is known of them, whole, in portions, in two tasks.
``judge``
    A small network that reads the factors off an image.
"""

from hopfield_cl.data.scenes.density import log_probability, probabilities
from hopfield_cl.data.scenes.drawing import render
from hopfield_cl.data.scenes.factors import FACTORS, JITTER
from hopfield_cl.data.scenes.judge import Judge, decode, train_judge
from hopfield_cl.data.scenes.sampling import SceneSet, scenes, split, stream
from hopfield_cl.data.scenes.wording import captions, parse

__all__ = [
    "FACTORS",
    "JITTER",
    "Judge",
    "SceneSet",
    "captions",
    "decode",
    "log_probability",
    "parse",
    "probabilities",
    "render",
    "scenes",
    "split",
    "stream",
    "train_judge",
]
