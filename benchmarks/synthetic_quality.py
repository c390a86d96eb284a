"""Quality of generated samples on simulated expression, over fresh seeds.

One model and one sample a seed and layout serve all scores; the rivals of `m1pipe quality` run
beside it on request. One Markdown row a layout and generator: mean over seeds of the score, and of
its ceiling (real training samples in the place of the synthetic ones):

    python benchmarks/synthetic_quality.py --seeds 0,1,2,3,4 --layouts unimodal,clusters --rivals

Options after `--set` are settings of `m1pipe train`, as in `--set transform=standardize`.
"""

import argparse
import json
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from m1pipe.config import EncoderConfig
from m1pipe.data.simulation.expression import ExpressionConfig, simulate_expression
from m1pipe.runs.generate import run_generate
from m1pipe.runs.train import run_training
from m1pipe.settings import build
from m1pipe.synthesis.config import GenerateConfig, QualityConfig
from m1pipe.synthesis.quality import quality

SCORES = (
    "gamma",
    "correlation_rmse",
    "ks_mean",
    "variance_ratio",
    "variance_log_rms",
    "c2st_forest",
    "recall",
    "precision",
    "tstr_over_trtr",
    "closer_to_train",
)
DEFAULTS = {"transform": "normal_score", "condition": "class"}


def measure(layout: str, seed: int, settings: dict[str, Any], *, rivals: bool) -> dict[str, Any]:
    """Simulate, train, generate and score: model to score to (value, ceiling)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        simulated = ExpressionConfig(layout=layout, seed=seed)  # type: ignore[arg-type]
        simulate_expression(folder / "sim", simulated)
        config = build(EncoderConfig, settings, {"seed": seed})
        run_training(folder / "sim" / "training.h5ad", folder / "run", config)
        made = GenerateConfig(n=simulated.n_training, seed=seed)
        label = config.model.condition
        run_generate(folder / "run", folder / "s.h5ad", made)
        report = quality(
            folder / "sim" / "training.h5ad",
            folder / "s.h5ad",
            folder / "sim" / "held_out.h5ad",
            config=QualityConfig(rivals=rivals, seed=seed, label=label),
        )
    return {
        model: {s.definition.name: (s.value, s.ceiling) for s in scores}
        for model, scores in report.scores.items()
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--layouts", default="unimodal,clusters")
    parser.add_argument("--rivals", action="store_true")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    chosen = parser.parse_args()
    settings = {**DEFAULTS, **dict(text.split("=", 1) for text in chosen.set)}
    settings = {name: _value(value) for name, value in settings.items()}
    print("| layout | generator | " + " | ".join(SCORES) + " |", flush=True)
    print("|---" * (len(SCORES) + 2) + "|", flush=True)
    for layout in chosen.layouts.split(","):
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for seed in map(int, chosen.seeds.split(",")):
            for model, scores in measure(layout, seed, settings, rivals=chosen.rivals).items():
                found[model].append(scores)
        for model, several in found.items():
            cells = [_cell([scores.get(name) for scores in several]) for name in SCORES]
            print(f"| {layout} | {model} | " + " | ".join(cells) + " |", flush=True)


def _cell(pairs: list[tuple[float, float | None] | None]) -> str:
    """Mean value over seeds and, in brackets, mean ceiling."""
    known = [pair for pair in pairs if pair is not None and pair[0] is not None]
    if not known:
        return "-"
    value = float(np.mean([pair[0] for pair in known]))
    ceilings = [pair[1] for pair in known if pair[1] is not None and np.isfinite(pair[1])]
    return f"{value:.3f}" + (f" ({np.mean(ceilings):.3f})" if ceilings else "")


def _value(text: Any) -> Any:
    """JSON where it is that, else text."""
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return text


if __name__ == "__main__":
    main()
