"""Diffusion models that forget: networks, training, energies, reconstruction, replay.

The rooms inside, from the ground floor up:

``models``
    A U-Net and its noise schedule, built from one configuration; saved and read without pickle.
``noise``
    Noise levels, and a trained model as a denoiser D(x, σ) like the exact one of chapter 3.
``energies``
    Three energies of a sample: of the data set, of the probability flow, of the denoising error.
``sampling``
    DDIM: generation, and reconstruction after noise.
``steps``
    Gradient steps on any loss, on one device or many, that resume where they were killed.
``training``
    How a diffusion model is trained by them, and what each step draws.
``checkpoints``
    Trained models in a folder, without pickle, each file with its hash.
``regularise``
    Elastic weight consolidation.
``quality``
    A small classifier, and the quality and coverage of generated samples in its feature space.
``continual``
    Task after task, with a replay buffer under a strategy and a budget.
"""
