"""What `m1pipe fit` does: a model folder around the fit of the final head."""

import os
import time
from pathlib import Path

import numpy as np
import pandas as pd

from m1pipe.atomic import atomic_folder, refuse_folder, write_json, write_text
from m1pipe.config import FitConfig
from m1pipe.console import log
from m1pipe.data.matrix import open_matrix
from m1pipe.evaluation.outside import RIVAL_FILES, fit_rivals
from m1pipe.labelled import Labelled, load_labelled
from m1pipe.predictor import PREDICTOR_FILES, Predictor, fit_labelled, head_threads
from m1pipe.recipe import MISSING_FILE, missing_table
from m1pipe.runs.augment import added_to_fit
from m1pipe.runs.card import CARD_FILE
from m1pipe.runs.head_card import describe_head, head_card
from m1pipe.runs.provenance import make_provenance

SAMPLES = "samples.csv"
WHAT = "a model"
OWN_FILES = (
    *(*PREDICTOR_FILES, *RIVAL_FILES, SAMPLES, "provenance.json", MISSING_FILE, CARD_FILE),
)
PathLike = str | os.PathLike[str]


def run_fit(
    x: PathLike,
    out: PathLike,
    config: FitConfig,
    *,
    y: PathLike | None = None,
    encoder: PathLike | None = None,
    aliases: PathLike | None = None,
    force: bool = False,
) -> tuple[Predictor, str]:
    """Fit the final head and keep it in a folder that stands alone.

    Parameters
    ----------
    x, y : path
        Genes, and levels to predict; no `y` where `config` names a label.
    out : path
        The model's folder.
    config : FitConfig
    encoder : path, optional
        Folder of the run whose encoder gives the features; the genes themselves without it.
    aliases : path, optional
        Table of other names of genes, by which those of `x` are matched as well.
    force : bool
        Overwrite a model that is there.

    Returns
    -------
    predictor : Predictor
    line : str
        What was made, in a line.

    Raises
    ------
    InputError
        If the folder is taken, or the files do not fit together.
    """
    begun = time.perf_counter()
    out = refuse_folder(out, OWN_FILES, what=WHAT, force=force)
    with open_matrix(x, aliases=aliases) as matrix:
        data = load_labelled(matrix, config, y=y, encoder=encoder)
        predictor = fit_labelled(data, config, added=added_to_fit(data, config))
        _tell_missing(data)
        rivals = fit_rivals(data.genes(), data.targets, groups=data.groups, seed=config.seed)
        samples = matrix.samples[data.rows]
        missing = missing_table(
            matrix, {"encoder": predictor.recipe}, min_coverage=config.min_coverage
        )
    named = {"x": x, "y": y, "aliases": aliases}
    inputs = {role: path for role, path in named.items() if path is not None}
    if encoder is not None:
        inputs["encoder"] = Path(encoder) / "model.safetensors"
    head = predictor.head
    n_threads = head_threads(head.features.n_inputs, head.module.n_out, config)
    provenance = make_provenance(inputs, folder=out, seed=config.seed, threads=n_threads)
    with atomic_folder(out, OWN_FILES, what=WHAT, force=force) as temporary:
        predictor.save(temporary)
        rivals.save(temporary)
        pd.DataFrame({"sample": samples}).to_csv(temporary / SAMPLES, index=False)
        write_json(temporary / "provenance.json", provenance)
        write_text(temporary / MISSING_FILE, missing)
        card = head_card(predictor, str(out), provenance, n_samples=len(samples))
        write_text(temporary / CARD_FILE, card)
    return predictor, _line(out, predictor, time.perf_counter() - begun)


def _tell_missing(data: Labelled) -> None:
    """Say how many levels are missing, where some are."""
    n_missing = int(np.isnan(data.aligned.take(data.rows)).sum())
    if n_missing:
        log.info("%s levels are missing: they stand at their training means", f"{n_missing:,}")


def _line(out: Path, predictor: Predictor, seconds: float) -> str:
    head = predictor.head
    what = "classes" if predictor.is_classes else "targets"
    more = f"{sum(predictor.added.values()):,} synthetic samples added, " if predictor.added else ""
    features = "the genes" if predictor.encoder is None else f"{predictor.encoder.n_latent} latents"
    error = ""
    if "inner_loss" in head.chosen:
        kind = "squared error as a share of the variance"
        name = kind if head.kind == "regression" else "log loss"
        error = f"{name} on held-out samples {head.chosen['inner_loss']:.3f}, "
    return (
        f"{out}: {len(head.names):,} {what} from {features}, {more}{error}"
        f"{describe_head(head)}, {seconds:.0f} s"
    )
