"""Image sets, all but CIFAR-10 without a network, and their split into tasks.

``images``
    Sets by name, and their parts: tasks, what is held out, a margin of black pixels.
``cifar``
    CIFAR-10 in its binary form: downloaded once and verified, or read from a folder.
``scenes``
    Captioned images that are drawn here, of known density.
"""

from hopfield_cl.data.images import ImageSet, hold_out, load, padded, split_tasks

__all__ = ["ImageSet", "hold_out", "load", "padded", "split_tasks"]
