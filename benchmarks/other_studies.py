"""Few labels of one tuberculosis study: what samples and labels of the other studies are worth.

    M1PIPE_TEST_DATA=FOLDER python benchmarks/other_studies.py --draws 4 --out other_studies.json

Each study that has active and latent tuberculosis is the target in its turn. The encoder is trained
on all samples of the others, the score on their labels; every model gets the same draws of labels
from the target, in 5 folds. Tests over folds and draws within a study, and over studies.
"""

import argparse
import json
import os
import time
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

from m1pipe import cross_validate, train_encoder
from m1pipe.config import CrossvalConfig, EncoderConfig, HeadConfig, ModelConfig, TrainingConfig
from m1pipe.data.units import Units
from m1pipe.evaluation.learning_curve import test_of_draws
from m1pipe.evaluation.significance import paired_t
from m1pipe.source_labels import Sources

CLASSES = ("latent", "tuberculosis")
LEAST_OF_CLASS = 8
ENCODERS = ("vae", "batch", "centred")  # plain; told the study; genes centred within it
MODELS = ("prior", "logistic", "transfer_logistic")
ON_LATENTS = ("{}_transfer", "{}_ridge_transfer")


def main() -> None:
    args = _parse()
    data = load(Path(os.environ["M1PIPE_TEST_DATA"]) / "tb_blood_rnaseq")
    curves = []
    for study in args.studies or targets(data):
        begun = time.perf_counter()
        curve = compare(data, study, args)
        curves.append(curve.assign(study=study))
        print(f"{study}: {time.perf_counter() - begun:.0f} s", flush=True)
    table = pd.concat(curves, ignore_index=True)
    rows = [*by_study(table), *over_studies(by_study(table))]
    print(pd.DataFrame(rows).to_string(index=False, float_format="%.3f"))
    if args.out:
        settings = {"draws": args.draws, "sizes": args.sizes, "seeds": args.seeds}
        settings |= {"encoders": args.encoders}
        scores = table[table["metric"].isin(["log_loss", "roc_auc", "balanced_accuracy"])]
        means = scores.groupby(["study", "n_train", "model", "metric"])["value"].mean()
        values = means.reset_index().to_dict(orient="records")
        found = {"settings": settings, "tests": rows, "means": values}
        Path(args.out).write_text(json.dumps(found, indent=1) + "\n")


def load(folder: Path) -> anndata.AnnData:
    """Counts as log2(1 + counts per million), with their labels."""
    counts = pd.read_csv(folder / "genes.tsv.gz", sep="\t", index_col=0)
    labels = pd.read_csv(folder / "labels.tsv", sep="\t", index_col=0).loc[counts.index]
    share = counts.to_numpy(float) / counts.sum(axis=1).to_numpy(float)[:, None]
    X = np.log2(1 + 1e6 * share).astype(np.float32)
    var = pd.DataFrame(index=counts.columns.astype(str))
    return anndata.AnnData(X, obs=labels.astype(str), var=var, uns=Units("log2_cpm1").to_uns())


def targets(data: anndata.AnnData) -> list[str]:
    """Studies with enough samples of both classes."""
    table = pd.crosstab(data.obs["study"], data.obs["status"])[list(CLASSES)]
    return sorted(table.index[(table >= LEAST_OF_CLASS).all(axis=1)])


def compare(data: anndata.AnnData, study: str, args: argparse.Namespace) -> pd.DataFrame:
    """Scores of every model, number of labels, fold and draw of one target study."""
    own = (data.obs["study"] == study).to_numpy()
    x = data[own & data.obs["status"].isin(CLASSES).to_numpy()].copy()
    others = data[~own].copy()
    encoders = {
        name: [train_encoder(others, encoder_config(name, seed)) for seed in range(args.seeds)]
        for name in args.encoders
    }
    on_latents = [text.format(name) for name in args.encoders for text in ON_LATENTS]
    sizes = tuple(n for n in args.sizes if n < 0.8 * x.n_obs - 1)
    config = CrossvalConfig(
        folds=5,
        models=(*MODELS, *on_latents),
        train_sizes=sizes,
        draws=args.draws,
        head=HeadConfig(hidden=()),
    )
    result = cross_validate(
        x,
        label="status",
        encoders=encoders,
        sources=Sources(files=(others,)),
        config=config,
    )
    return result.curve.assign(n_samples=x.n_obs)


def encoder_config(name: str, seed: int) -> EncoderConfig:
    """Settings of an encoder; the plain one is not told of studies."""
    model = ModelConfig(
        n_latent=32,
        batch=("study",) if name == "batch" else (),
        center_within="study" if name == "centred" else None,
    )
    return EncoderConfig(model=model, training=TrainingConfig(seed=seed, device="cpu"))


def by_study(table: pd.DataFrame) -> list[dict[str, object]]:
    """Each pair of models at each number of labels of each study, over folds and draws."""
    rows: list[dict[str, object]] = []
    loss = table[table["metric"] == "log_loss"]
    for (study, n_train), part in loss.groupby(["study", "n_train"]):
        if part["draw"].nunique() < 2:
            continue
        n_samples = int(part["n_samples"].iloc[0])
        wide = part.pivot_table(index=["repeat", "fold"], columns=["model", "draw"], values="value")
        models = [name for name in dict.fromkeys(part["model"]) if name != "prior"]
        pairs = [(name, "logistic") for name in models]
        pairs += [(name, "transfer_logistic") for name in models if name.endswith("_transfer")]
        for a, b in ((a, b) for a, b in pairs if a != b):
            gap = wide[a].to_numpy() - wide[b].to_numpy()
            found = test_of_draws(
                gap, int(n_train), n_folds=5, n_samples=n_samples, by_strata=False
            )
            rows.append(_row(str(study), int(n_train), a, b, found))
    return rows


def over_studies(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """The mean over studies: each weighs the same; a t-test over them speaks of new studies.

    Beside it the mean of these studies alone, with the error of their tests: `these studies`.
    """
    found: list[dict[str, object]] = []
    for (n_train, a, b), part in pd.DataFrame(rows).groupby(["labels", "a", "b"], sort=False):
        gaps = part["difference"].to_numpy(float)
        found.append(_row("over studies", int(n_train), a, b, paired_t(gaps)))
        errors = (part["ci_high"] - part["ci_low"]).to_numpy(float) / 2 / 1.96
        half = 1.96 * float(np.sqrt(np.sum(errors**2))) / len(gaps)
        mean = float(gaps.mean())
        found.append(
            {
                "study": "these studies",
                "labels": int(n_train),
                "a": a,
                "b": b,
                "difference": mean,
                "ci_low": mean - half,
                "ci_high": mean + half,
            }
        )
    return found


def _row(study: str, n_train: int, a: str, b: str, test: object) -> dict[str, object]:
    names = ("difference", "ci_low", "ci_high", "p")
    return {
        **{"study": study, "labels": n_train, "a": a, "b": b},
        **{name: float(getattr(test, name)) for name in names},
    }


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=4, help="draws of labels in each of 5 folds")
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 16, 24])
    parser.add_argument("--seeds", type=int, default=1, help="encoders of each target")
    parser.add_argument("--encoders", nargs="+", default=list(ENCODERS), choices=ENCODERS)
    parser.add_argument("--studies", nargs="+")
    parser.add_argument("--out")
    return parser.parse_args()


if __name__ == "__main__":
    main()
