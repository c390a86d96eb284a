"""Quality of generated samples on simulated expression, over fresh seeds.

One model and one sample a seed and layout serve all scores. Beside it on request the rivals of
`m1pipe quality`, and as the control of the privacy scores samples from the posteriors of the
training samples. Printed are Markdown rows, one a layout, generator and score: mean over seeds,
lowest and highest, and the mean ceiling (real training samples in the place of synthetic ones):

    python benchmarks/synthetic_quality.py --seeds 0,1,2,3,4 --rivals --control --out R.json

Options after `--set` are settings of `m1pipe train`, as in `--set transform=standardize`.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from m1pipe.config import EncoderConfig
from m1pipe.data.simulation.expression import ExpressionConfig, simulate_expression
from m1pipe.settings import build
from m1pipe.synthesis.config import GenerateConfig, QualityConfig
from m1pipe.synthesis.generate import run_generate
from m1pipe.synthesis.quality import quality
from m1pipe.synthesis.scores import Score
from m1pipe.workflow.training_run import run_training

SCORES = (
    "gamma",
    "correlation_rmse",
    "ks_mean",
    "variance_ratio",
    "variance_log_rms",
    "c2st_forest",
    "c2st_logistic",
    "precision",
    "recall",
    "coverage",
    "tstr_over_trtr",
    "closer_to_train",
    "membership_auc",
)
CONTROL = "posterior (control)"
FIELDS = ("value", "low", "high", "ceiling", "floor")
QUICK = {"n_draws": 1, "n_resamples": 20, "n_permutations": 1, "max_genes": 100}
DEFAULTS = {"transform": "normal_score", "condition": "class"}


def measure(
    layout: str, seed: int, settings: dict[str, Any], *, rivals: bool, control: bool
) -> list[dict[str, Any]]:
    """Simulate, train, generate and score: a row a model and score."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder, sim = Path(name), Path(name) / "sim"
        simulated = ExpressionConfig(layout=layout, seed=seed)  # type: ignore[arg-type]
        simulate_expression(sim, simulated)
        config = build(EncoderConfig, settings, {"seed": seed})
        run_training(sim / "training.h5ad", folder / "run", config)
        files = (sim / "training.h5ad", folder / "s.h5ad", sim / "held_out.h5ad")
        made = GenerateConfig(n=simulated.n_training, seed=seed)
        run_generate(folder / "run", files[1], made)
        scored = QualityConfig(rivals=rivals, seed=seed, label=config.model.condition)
        for model, scores in quality(*files, config=scored).scores.items():
            rows += [row(layout, seed, model, score) for score in scores]
        if control:
            made = GenerateConfig(n=simulated.n_training, seed=seed, sampler="posterior")
            run_generate(folder / "run", files[1], made, force=True)
            report = quality(*files, config=QualityConfig(seed=seed, **QUICK))
            rows.append(row(layout, seed, CONTROL, report.score("closer_to_train")))
    return rows


def row(layout: str, seed: int, model: str, score: Score) -> dict[str, Any]:
    """A score in plain numbers; None where it has none."""
    numbers = {name: getattr(score, name) for name in FIELDS}
    plain = {name: float(x) if np.isfinite(x) else None for name, x in numbers.items()}
    return {
        "layout": layout,
        "seed": seed,
        "generator": model,
        "score": score.definition.name,
        **plain,
    }


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--layouts", default="unimodal,clusters")
    parser.add_argument("--rivals", action="store_true")
    parser.add_argument("--control", action="store_true")
    parser.add_argument("--out", type=Path, help="every score of every seed as JSON")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    chosen = parser.parse_args()
    settings = {**DEFAULTS, **dict(text.split("=", 1) for text in chosen.set)}
    settings = {name: _value(value) for name, value in settings.items()}
    rows: list[dict[str, Any]] = []
    for seed in map(int, chosen.seeds.split(",")):
        for layout in chosen.layouts.split(","):
            begun = time.process_time()
            rows += measure(layout, seed, settings, rivals=chosen.rivals, control=chosen.control)
            print(f"# {layout}, seed {seed}: {time.process_time() - begun:.0f} CPU s", flush=True)
            if chosen.out is not None:
                _write(chosen, settings, rows)
    print("| layout | generator | score | mean | range | ceiling |\n" + "|---" * 6 + "|")
    for key in dict.fromkeys((r["layout"], r["generator"], r["score"]) for r in rows):
        if key[2] in SCORES:
            found = [r for r in rows if (r["layout"], r["generator"], r["score"]) == key]
            print(f"| {' | '.join(key)} | {_cells(found)} |")


def _cells(found: list[dict[str, Any]]) -> str:
    """Mean over seeds, lowest and highest, and the mean ceiling."""
    values = [r["value"] for r in found if r["value"] is not None]
    ceilings = [r["ceiling"] for r in found if r["ceiling"] is not None]
    if not values:
        return "- | - | -"
    ceiling = f"{np.mean(ceilings):.3f}" if ceilings else "-"
    return f"{np.mean(values):.3f} | {min(values):.3f} to {max(values):.3f} | {ceiling}"


def _write(
    chosen: argparse.Namespace, settings: dict[str, Any], rows: list[dict[str, Any]]
) -> None:
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    found = {
        "machine": machine,
        "load": os.getloadavg()[0],
        "train": settings,
        "rivals": chosen.rivals,
        "scores": rows,
    }
    chosen.out.write_text(json.dumps(found, indent=1) + "\n")


def _value(text: Any) -> Any:
    """JSON where it is that, else text."""
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return text


if __name__ == "__main__":
    main()
