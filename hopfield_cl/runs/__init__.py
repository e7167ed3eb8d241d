"""Full-scale runs, each recorded by one command, and the check of what was recorded.

``replay_in_closed_form``
    What a replay budget protects in the network that stores the data (Part II).
``learned_forgetting``
    What a machine that learns its memories forgets, and what replay gives back.
``ddpm_laboratory``, ``ddpm_forgetting``, ``ddpm_replay``, ``ddpm_stream``
    A diffusion model: what all its runs share, which samples it forgets, what replay saves, and
    five tasks one after another.
``sd_laboratory``, ``sd_small``, ``sd_forgetting``, ``sd_replay``
    Stable Diffusion: what its runs share, the book's small pipeline, which prompts it forgets, and
    what replay saves.
``verification``
    Recorded files against their hashes, and some rows computed again.
"""
