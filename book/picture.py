"""Draw the picture of the introduction and of the README: python book/picture.py."""

from __future__ import annotations

from pathlib import Path

import torch

from hopfield_cl import plotting
from hopfield_cl.energy import energy

CENTRE = (-1.0, 0.1)
AROUND = [(-0.5, 0.1), (-0.1, 0.4), (0.3, 0.2), (-0.3, -0.4), (0.2, -0.4), (0.0, 0.0), (0.6, -0.1)]
ALONE = (2.4, -0.1)
BETA = 3.0
SIDES = (-2.6, 2.6, -1.5, 1.5)


def main() -> None:
    """Draw the energy of eight memories in the plane, with masses that make it a log-density."""
    memories = torch.tensor([*AROUND, ALONE], dtype=torch.float64)
    memories += torch.tensor(CENTRE, dtype=torch.float64)
    masses = (-BETA * memories.square().sum(1) / 2).exp()
    left, right, low, high = SIDES
    across = torch.linspace(left, right, 400, dtype=torch.float64)
    up = torch.linspace(low, high, 240, dtype=torch.float64)
    plane = torch.stack(torch.meshgrid(across, up, indexing="xy"), dim=-1)
    heights = energy(plane, memories, BETA, weights=masses)
    figure, axes = plotting.subplots(figsize=(7.0, 3.8))
    lowest = heights.min().item()
    levels = [lowest + 0.08 * step for step in range(16)]
    shade = axes.contourf(across, up, heights, levels=levels, cmap="Blues_r", extend="max")
    axes.contour(across, up, heights, levels=levels, colors="white", linewidths=0.5)
    cluster, outlier = memories[:-1], memories[-1:]
    axes.plot(*cluster.T, "o", color="white", markeredgecolor="black", label="share a valley")
    axes.plot(*outlier.T, "o", color=plotting.OUTLIER, markeredgecolor="black", label="alone")
    axes.set(xlabel="first coordinate", ylabel="second coordinate", aspect="equal")
    axes.grid(visible=False)
    axes.legend(loc="upper right", labelcolor="black", frameon=True)
    figure.colorbar(shade, label="energy (coordinate²)", shrink=0.8)
    target = Path(__file__).parent / "_static" / "basins.png"
    target.write_bytes(plotting.png(figure, dpi=130))


if __name__ == "__main__":
    main()
