"""Names of a comparison's rows: which there are, what each is fitted on, and its settings."""

from collections.abc import Sequence
from dataclasses import replace

from m1pipe.config import CrossvalConfig, HeadConfig
from m1pipe.errors import InputError
from m1pipe.evaluation.representations import EncoderRow
from m1pipe.evaluation.variants import VARIANTS, plain_row

CONSTANT_ROWS = ("mean", "prior", "stratum_mean")
GENE_ROWS = ("ridge", "logistic", "raw", "ridge_gene")
PCA_ROWS = ("pca_ridge", "pca_logistic", "pca", "pca_fold")
LINEAR_ROWS = ("ridge", "logistic", "pca_ridge", "pca_logistic", "gene", "ridge_gene")
OWN_GENE = "gene"
OWN_SUFFIX = "_gene"
ALL_ROWS = (*CONSTANT_ROWS, *GENE_ROWS, *PCA_ROWS, OWN_GENE)
PUBLISHED_GENE_HEAD = (256, 32)
PUBLISHED_LATENT_HEAD = (32,)
TUNED_WIDTHS = ((64,), (256,), (1024,))
TUNED_RATES = (3e-4, 1e-3, 3e-3)


def ladder(
    kind: str,
    encoders: Sequence[EncoderRow],
    models: Sequence[str] | None,
    *,
    strata: bool = False,
    own_genes: bool = False,
    augment: bool = False,
) -> tuple[str, ...]:
    """Rows of a comparison, the yardstick first and the encoders last.

    Parameters
    ----------
    kind : str
        Kind of the targets.
    encoders : sequence of EncoderRow
        Always rows of their own.
    models : sequence of str or None
        The other rows to run; None: all that there are.
    strata : bool
        Whether the strata of all samples are known: levels may then have a `stratum_mean`.
    own_genes : bool
        Whether targets know a gene that X has: `gene`, and NAME_gene beside others.
    augment : bool
        Whether the raw network and every encoder row have their variants beside them.

    Returns
    -------
    tuple of str
        The yardstick (the training mean, or the prior) is in it whether named or not.

    Raises
    ------
    InputError
        If a row is not known for such targets, or nothing is there to have variants.
    """
    stored = any(row.frozen for row in encoders)
    names = tuple(row.name for row in encoders)
    pca = "pca" if stored else "pca_fold"
    if kind == "regression":
        usual: tuple[str, ...] = ("mean", *(("stratum_mean",) if strata else ()), "ridge")
        usual += ("pca_ridge", "raw", pca)
        more: tuple[str, ...] = ()
    else:
        usual, more = ("prior", "logistic", "raw", pca), ("pca_logistic",)
        if kind == "multilabel":
            usual, more = (*usual[:2], *more, *usual[2:]), ()
    own = (OWN_GENE, "ridge_gene", *(name + OWN_SUFFIX for name in (pca, *names)))
    usual += own if own_genes and kind == "regression" else ()
    known = (*usual, *more, *(("pca_fold",) if stored else ()))
    known += (f"raw{OWN_SUFFIX}",) if own_genes and kind == "regression" else ()
    chosen = usual if models is None else tuple(models)
    _refuse_unknown(chosen, (*known, *names), stored=stored)
    rows = (*(name for name in known if name in (*chosen, known[0])), *names)
    return _with_variants(rows, names) if augment else rows


def _with_variants(rows: Sequence[str], encoders: Sequence[str]) -> tuple[str, ...]:
    """The rows, and beside each plain network its variants; those of raw behind all other rows."""
    if "raw" not in rows and not encoders:
        raise InputError("augment: expected the row raw or an encoder; found neither: add one")
    plain = [row for row in rows if row not in encoders]
    found = [*plain, *("raw" + suffix for suffix in VARIANTS if "raw" in rows)]
    return (*found, *(name + suffix for name in encoders for suffix in ("", *VARIANTS)))


def _refuse_unknown(chosen: Sequence[str], known: Sequence[str], *, stored: bool) -> None:
    unknown = [name for name in chosen if name not in known]
    if not unknown:
        return
    needs = {
        "pca": "pca needs a frozen encoder's run",
        "stratum_mean": "stratum_mean needs --stratify, and levels to predict",
        OWN_GENE: "gene needs a column gene_id of Y's annotations that names genes of X",
    }
    keys = [OWN_GENE if name.endswith(OWN_SUFFIX) else name for name in unknown]
    why = [
        needs[key] for key in dict.fromkeys(keys) if key in needs and (key != "pca" or not stored)
    ]
    raise InputError(
        f"models: expected some of {', '.join(dict.fromkeys(known))}; found {', '.join(unknown)}"
        + "".join(f": {text}" for text in why)
    )


def base_row(row: str) -> str:
    """The row whose inputs a row has: `vae` for `vae_gene`, the row itself for others.

    >>> base_row("vae_gene"), base_row("gene"), base_row("raw_augmented")
    ('vae', 'gene', 'raw')
    """
    return row if row == OWN_GENE else plain_row(row).removesuffix(OWN_SUFFIX)


def has_own_term(row: str, config: CrossvalConfig) -> bool:
    """Whether a feed-forward row adds each target's own gene."""
    return row.endswith(OWN_SUFFIX) or config.head.own_gene


def linear_rival(kind: str, rows: Sequence[str], declared: str | None) -> str | None:
    """The linear row of the declared family of comparisons.

    Raises
    ------
    InputError
        If the one declared is not among the rows.
    """
    usual = "ridge" if kind == "regression" else "logistic"
    if declared is None:
        return usual if usual in rows else None
    if declared not in rows:
        raise InputError(
            f"linear-rival: expected one of the rows {', '.join(rows)}; found {declared!r}"
        )
    return declared


def head_config(row: str, config: CrossvalConfig) -> HeadConfig:
    """Settings of a feed-forward row: the same for all, or the published ones for its input."""
    if config.recipe == "best":
        return config.head
    return replace(
        config.head,
        hidden=PUBLISHED_GENE_HEAD if base_row(row) in GENE_ROWS else PUBLISHED_LATENT_HEAD,
        lr=1e-3,
        weight_decay=0.0,
        dropout=0.0,
        patience=0,
        validation=0.0,
        standardize=False,
        initialize_bias=False,
    )


def tuned_settings(config: CrossvalConfig) -> list[HeadConfig]:
    """Settings that are tried for every feed-forward row: widths by learning rates, or one."""
    if not config.tune or config.recipe != "best":
        return [config.head]
    return [
        replace(config.head, hidden=hidden, lr=lr) for hidden in TUNED_WIDTHS for lr in TUNED_RATES
    ]


def is_head(row: str) -> bool:
    """Whether a row of the ladder is a feed-forward network."""
    return row not in (*CONSTANT_ROWS, *LINEAR_ROWS)
