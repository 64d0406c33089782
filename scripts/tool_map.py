"""Draws the coverage map of tools: t-SNE of their embeddings, real and synthetic (the paper's Fig. 9), and the figures beside it.

.venv/bin/abruzzi tools import REAL && .venv/bin/abruzzi tools evolve SYNTHETIC
.venv/bin/python scripts/tool_map.py REAL SYNTHETIC docs/images
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from sklearn.manifold import TSNE

from abruzzi.contracts.tool import ToolSpec
from abruzzi_jobs.synthesis.catalogue import read_catalogue, read_manifest
from abruzzi_jobs.synthesis.embedding import EMBEDDER, embed


def label(tool: ToolSpec) -> str:
    kind, _, place = tool.source.partition(":")
    return place.split("/")[0] if kind == "synthetic" else place.rpartition("@")[0].split("/")[-1]


def draw(axes, points: np.ndarray, labels: list[str], title: str, palette: str) -> None:
    names = sorted(set(labels))
    colours = matplotlib.colormaps[palette](np.linspace(0, 1, len(names)))
    for name, colour in zip(names, colours, strict=True):
        here = points[[one == name for one in labels]]
        axes.scatter(here[:, 0], here[:, 1], s=5, color=colour, label=f"{name} ({len(here)})", linewidths=0)
    axes.set_title(title, loc="left", fontsize=11)
    axes.set(xticks=[], yticks=[])
    axes.legend(fontsize=6, markerscale=2, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def main(real_folder: Path, synthetic_folder: Path, out: Path) -> None:
    real, synthetic = read_catalogue(real_folder), read_catalogue(synthetic_folder)
    tools = [*real, *synthetic]
    vectors = embed(tools)
    points = TSNE(2, metric="cosine", init="random", random_state=0, perplexity=30).fit_transform(vectors)
    near = (vectors[: len(real)] @ vectors[len(real) :].T).max(axis=1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5.6), layout="constrained", sharex=True, sharey=True)
    draw(
        left,
        points[: len(real)],
        [label(t) for t in real],
        f"{len(real)} real tools of {len(set(map(label, real)))} servers",
        "tab20",
    )
    draw(
        right,
        points[len(real) :],
        [label(t) for t in synthetic],
        f"{len(synthetic)} synthetic tools of 17 domains",
        "tab20",
    )
    figure.savefig(out / "tool-map.png", dpi=110)
    facts = {
        "embedder": EMBEDDER,
        "real": {"tools": len(real), "digest": read_manifest(real_folder)["content_digest"]},
        "synthetic": {"tools": len(synthetic), "digest": read_manifest(synthetic_folder)["content_digest"]},
        "cosine_of_a_real_tool_to_its_nearest_synthetic": {
            str(q): round(float(np.quantile(near, q)), 3) for q in (0.1, 0.5, 0.9)
        },
    }
    (out / "tool-map.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps(facts))  # noqa: T201


if __name__ == "__main__":
    main(*(Path(name) for name in sys.argv[1:4]))
