r"""Few labels of cells: latents of scVI and of m1pipe, in the same heads on the same draws.

    M1PIPE_TEST_DATA=FOLDER OMP_NUM_THREADS=1 python benchmarks/rival_encoders.py \
        --scvi-python /path/to/python --work FOLDER --out rival_encoders.json

Encoders are trained on the cells of four donors without labels, labels are drawn from three of the
other four and tested on the fourth, by tuned logistic regression on the latents, the same for all;
then the two halves change places. `--scvi-python` is a Python
with scvi-tools; without it scVI is left out. What it has computed stays in the work folder, and a
second call takes it from there.
"""

import argparse
import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd

from m1pipe import load_encoder, train_encoder
from m1pipe.config import CrossvalConfig, EncoderConfig, HeadConfig, ModelConfig, TrainingConfig
from m1pipe.data.units import Units
from m1pipe.encoder.trained import Encoder
from m1pipe.evaluation.crossval import run_shares
from m1pipe.evaluation.fold_results import Share, assemble
from m1pipe.evaluation.inputs import whole_inputs
from m1pipe.evaluation.learning_curve import curve_means, curve_tests
from m1pipe.evaluation.plan import make_plan
from m1pipe.evaluation.problem import make_problem
from m1pipe.evaluation.result import CrossvalResult

HALF = ("107", "1016", "1244", "1256")
"""Donors of the unlabelled cells; then those of the labelled ones."""
SEEDS = (1, 2, 3)
METRICS = ("log_loss", "balanced_accuracy")
Latents = dict[str, list[np.ndarray]]


def main() -> None:
    args = _parse()
    counts = load(Path(os.environ["M1PIPE_TEST_DATA"]) / "sc_pbmc_kang12k")
    first = counts.obs["donor"].isin(HALF).to_numpy()
    tables, facts = [], {}
    for name, is_unlabelled in (("first", first), ("second", ~first)):
        folder = args.work / name
        folder.mkdir(parents=True, exist_ok=True)
        halves = counts[is_unlabelled].copy(), counts[~is_unlabelled].copy()
        rivals, facts[name] = scvi_latents(*halves, folder, args)
        unlabelled, labelled = map(normalised, halves)
        encoders = [trained(unlabelled, folder / f"vae{seed}", seed) for seed in SEEDS]
        tables += score(compare(labelled, encoders, rivals, args), name)
        print(pd.DataFrame(tables[-1]).to_string(index=False, float_format="%.4f"), flush=True)
    if args.out:
        settings = {key: vars(args)[key] for key in ("draws", "sizes", "seeds", "latents")}
        means, tests = ([r for t in tables[k::2] for r in t] for k in (0, 1))
        found = {"settings": settings, "scvi": facts, "means": means, "tests": tests}
        args.out.write_text(json.dumps(found, indent=1) + "\n")


def load(folder: Path) -> anndata.AnnData:
    """Counts of all cells, with their labels."""
    counts = pd.read_csv(folder / "genes.tsv.gz", sep="\t", index_col=0)
    labels = pd.read_csv(folder / "labels.tsv", sep="\t", index_col=0).loc[counts.index]
    var = pd.DataFrame(index=counts.columns.astype(str))
    return anndata.AnnData(counts.to_numpy(np.float32), obs=labels.astype(str), var=var)


def normalised(counts: anndata.AnnData) -> anndata.AnnData:
    """log2(1 + counts per 10,000)."""
    totals = np.maximum(counts.X.sum(axis=1, keepdims=True), 1)
    X = np.log2(1 + 1e4 * counts.X / totals).astype(np.float32)
    units = Units("log2_normalized1", target_sum=1e4).to_uns()
    return anndata.AnnData(X, obs=counts.obs, var=counts.var, uns=units)


def scvi_latents(
    unlabelled: anndata.AnnData, labelled: anndata.AnnData, folder: Path, args: argparse.Namespace
) -> tuple[Latents, dict[str, Any]]:
    """Latents of the labelled cells by every number of units, one a seed, and what they cost."""
    if args.scvi_python is None:
        return {}, {}
    files = [folder / f"{name}.h5ad" for name in ("unlabelled", "labelled")]
    for file, cells in zip(files, (unlabelled, labelled), strict=True):
        if not file.exists():
            cells.write_h5ad(file)
    script = Path(__file__).with_name("scvi_latents.py")
    found: Latents = {}
    facts: dict[str, Any] = {}
    for seed in range(1, args.seeds + 1):
        for n in args.latents:
            out = folder / f"scvi{n}_{seed}.npy"
            log = out.with_suffix(".json")
            if not log.exists():
                command = [args.scvi_python, script, *files, "--out", out]
                command += ["--latent", str(n), "--seed", str(seed)]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                log.write_text(done.stdout.splitlines()[-1] + "\n")
                print(folder.name, out.stem, log.read_text().strip(), flush=True)
            found.setdefault(f"scvi{n}", []).append(np.load(out).astype(np.float32))
            facts[out.stem] = json.loads(log.read_text())
    return found, facts


def trained(unlabelled: anndata.AnnData, run: Path, seed: int) -> Encoder:
    """The default encoder."""
    if not (run / "model.json").exists():
        config = EncoderConfig(model=ModelConfig(n_latent=32), training=TrainingConfig(seed=seed))
        train_encoder(unlabelled, config).save(run)
    return load_encoder(run)


def compare(
    labelled: anndata.AnnData, encoders: list[Encoder], rivals: Latents, args: argparse.Namespace
) -> CrossvalResult:
    """A cross-validation in which latents of rivals stand in the place of an encoder's."""
    named = {name: encoders[: len(latents)] for name, latents in rivals.items()}
    problem = make_problem(
        labelled,
        label="cell_type",
        encoders={**named, "vae": encoders},
        config=CrossvalConfig(
            models=("prior", "pca_linear"),
            folds=4,
            group="donor",
            train_sizes=tuple(args.sizes),
            draws=args.draws,
            head=HeadConfig(hidden=()),
        ),
    )
    inputs = {**whole_inputs(problem), **rivals}
    shares: list[Share] = []
    plan = make_plan(problem, label="cell_type")
    for size in (None, *args.sizes):
        places = [(repeat, fold, draw) for repeat, fold, n, draw in plan.shares if n == size]
        shares += run_shares(replace(problem, train_size=size), inputs, places)
    return assemble(plan, shares)


def score(result: CrossvalResult, name: str) -> list[Any]:
    """Means of all models by number of labels, and `vae` against the others."""
    design: dict[str, Any] = {"n_folds": 4, "n_samples": len(result.samples), "by_strata": False}
    pairs = [("vae", other) for other in result.models if other not in ("vae", "prior")]
    means = curve_means(result.curve, METRICS, **design)
    tests = curve_tests(result.curve, pairs, metric="log_loss", **design)
    return [t.assign(unlabelled=name).to_dict(orient="records") for t in (means, tests)]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--scvi-python", help="a Python with scvi-tools; without it no scVI")
    parser.add_argument("--latents", type=int, nargs="+", default=[10, 32], help="scVI's units")
    parser.add_argument("--seeds", type=int, default=3, help="of scVI")
    parser.add_argument("--sizes", type=int, nargs="+", default=[30, 60, 120, 300])
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--work", type=Path, required=True, help="folder of encoders and latents")
    parser.add_argument("--out", type=Path, help="results as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
