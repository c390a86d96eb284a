"""The models of a comparison: which there are, and what each one's name stands for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from m1pipe.config import CrossvalConfig, HeadConfig
from m1pipe.errors import InputError
from m1pipe.evaluation.encoders import NAME, EncoderRow

Part = Literal["constant", "linear", "head"]
CONSTANT_ROWS = ("mean", "prior", "stratum_mean")
OWN_GENE = "gene"
OWN_SUFFIX, LINEAR_SUFFIX, RIDGE_SUFFIX = "_gene", "_linear", "_ridge"
ENSEMBLE_SUFFIX = "_ensemble"
SUFFIXES = (OWN_SUFFIX, LINEAR_SUFFIX, RIDGE_SUFFIX, ENSEMBLE_SUFFIX)
PRIOR_ROWS = ("ridge_prior", "logistic_prior")
GENES, NOTHING = "genes", "nothing"
_GENE_ROWS = {"raw": "head", "ridge": "linear", "logistic": "linear"}
_PCA = ("pca", "pca_fold")
RENAMED = {"pca_ridge": "pca_linear", "pca_logistic": "pca_linear"}
"""Names of version 0.1 that are still understood."""
ALL_ROWS = (*CONSTANT_ROWS, *_GENE_ROWS, *_PCA, *PRIOR_ROWS, *RENAMED, OWN_GENE, GENES, NOTHING)
PUBLISHED_GENE_HEAD = (256, 32)
PUBLISHED_LATENT_HEAD = (32,)
TUNED_WIDTHS = ((64,), (256,), (1024,))
TUNED_RATES = (3e-4, 1e-3, 3e-3)
WEIGHTED = "_weighted"
BOOTSTRAP = "_bootstrap"
AUGMENTED = "_augmented"
VARIANTS = (WEIGHTED, BOOTSTRAP, AUGMENTED)
_TAKEN = ("_gene", "_linear", "_ridge", "_ensemble", "_prior", *VARIANTS)


@dataclass(frozen=True)
class Model:
    """What a model's name stands for.

    Attributes
    ----------
    name : str
    inputs : str
        What it is fitted to: "genes", "pca", "pca_fold", an encoder's name, or "nothing".
    part : "constant", "linear" or "head"
        A constant, the penalised linear map alone, or that with a hidden part.
    own_gene : bool
        Whether each level's own gene has a term.
    with_genes : bool
        Whether the genes stand beside the inputs.
    prior : bool
        Whether the coefficients of the genes have the covariance of the PCA as their prior.
    variant : str or None
        Of the training rows: weighted, drawn again, or with synthetic samples.
    ensemble : bool
        Whether it is the mean prediction of an encoder's seeds.
    """

    name: str
    inputs: str
    part: Part
    own_gene: bool = False
    with_genes: bool = False
    prior: bool = False
    variant: str | None = None
    ensemble: bool = False


def model_of(name: str) -> Model:
    """What a name stands for; any that is not one of `ALL_ROWS` is an encoder's, or made of it.

    >>> model_of("vae_ridge_gene")
    Model(name='vae_ridge_gene', inputs='vae', part='linear', own_gene=True, with_genes=True, \
prior=False, variant=None, ensemble=False)
    >>> model_of("ridge").inputs, model_of("gene").inputs, model_of("raw_augmented").variant
    ('genes', 'nothing', '_augmented')
    """
    if name in CONSTANT_ROWS:
        return Model(name, NOTHING, "constant")
    if name == OWN_GENE:
        return Model(name, NOTHING, "linear", own_gene=True)
    if name in PRIOR_ROWS:
        return Model(name, GENES, "linear", prior=True)
    if name.endswith(ENSEMBLE_SUFFIX):
        return Model(name, name.removesuffix(ENSEMBLE_SUFFIX), "head", ensemble=True)
    variant, base = variant_of(name), plain_row(name)
    own = base.endswith(OWN_SUFFIX)
    base = base.removesuffix(OWN_SUFFIX)
    if base in _GENE_ROWS:
        part: Part = "head" if _GENE_ROWS[base] == "head" else "linear"
        return Model(name, GENES, part, own, variant=variant)
    linear = base.endswith(LINEAR_SUFFIX)
    with_genes = base.endswith(RIDGE_SUFFIX)
    inputs = base.removesuffix(LINEAR_SUFFIX).removesuffix(RIDGE_SUFFIX)
    part = "linear" if linear or with_genes else "head"
    return Model(name, inputs, part, own, with_genes, variant=variant)


def ladder(
    kind: str,
    encoders: Sequence[EncoderRow],
    models: Sequence[str] | None,
    *,
    strata: bool = False,
    own_genes: bool = False,
    augment: bool = False,
) -> tuple[str, ...]:
    """Names of the models of a comparison, the yardstick first and the encoders last.

    Parameters
    ----------
    kind : str
        Kind of the targets.
    encoders : sequence of EncoderRow
        Always models of their own.
    models : sequence of str or None
        The other models to run; None: the usual ones.
    strata : bool
        Whether the strata of all samples are known: levels may then have a `stratum_mean`.
    own_genes : bool
        Whether targets know a gene that X has: `gene`, and NAME_gene beside others.
    augment : bool
        Whether the raw network and every encoder have their variants beside them.

    Returns
    -------
    tuple of str
        The yardstick (the training mean, or the prior) is in it whether named or not.

    Raises
    ------
    InputError
        If a model is not known for such targets, or nothing is there to have variants.
    """
    stored = any(row.frozen for row in encoders)
    names = tuple(row.name for row in encoders)
    pca = "pca" if stored else "pca_fold"
    levels = kind == "regression"
    linear = "ridge" if levels else "logistic"
    own_genes = own_genes and levels
    usual = ("mean", *(("stratum_mean",) if strata else ())) if levels else ("prior",)
    usual += (linear, f"{pca}{LINEAR_SUFFIX}", "raw", pca)
    if own_genes:
        usual += (OWN_GENE, f"{linear}{OWN_SUFFIX}", *(n + OWN_SUFFIX for n in (pca, *names)))
    beside = (LINEAR_SUFFIX, RIDGE_SUFFIX) if levels else (LINEAR_SUFFIX,)
    usual += tuple(name + suffix for name in names for suffix in beside)
    usual += tuple(row.name + ENSEMBLE_SUFFIX for row in encoders if row.n_seeds > 1)
    more = [f"{linear}_prior"]
    more += [] if levels else [name + RIDGE_SUFFIX for name in names]  # five logistic regressions
    more += [f"pca_fold{LINEAR_SUFFIX}", "pca_fold"] if stored else []
    if own_genes:
        made = [name + suffix for name in names for suffix in (LINEAR_SUFFIX, RIDGE_SUFFIX)]
        more += [name + OWN_SUFFIX for name in ("raw", f"{pca}{LINEAR_SUFFIX}", *made)]
    known = (*usual, *more)
    chosen = usual if models is None else tuple(_renamed(name, pca) for name in models)
    _refuse_unknown(chosen, (*known, *names), stored=stored)
    rows = (*(name for name in known if name in (*chosen, known[0])), *names)
    return _with_variants(rows, names) if augment else rows


def _renamed(name: str, pca: str) -> str:
    """A model's present name; `pca` and its linear model are those of the comparison's PCA."""
    name = RENAMED.get(name, name)
    return f"{pca}{LINEAR_SUFFIX}" if name == f"pca{LINEAR_SUFFIX}" else name


def _with_variants(rows: Sequence[str], encoders: Sequence[str]) -> tuple[str, ...]:
    """The models, and beside each plain network its variants; those of raw behind all others."""
    if "raw" not in rows and not encoders:
        raise InputError("augment: expected the model raw or an encoder; found neither: add one")
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
        ENSEMBLE_SUFFIX: "_ensemble needs an encoder of several seeds (NAME=RUN1,RUN2)",
        OWN_GENE: "gene needs a column gene_id of Y's annotations that names genes of X",
    }
    ends = {OWN_SUFFIX: OWN_GENE, ENSEMBLE_SUFFIX: ENSEMBLE_SUFFIX}
    keys = [next((k for end, k in ends.items() if n.endswith(end)), n) for n in unknown]
    why = [
        needs[key] for key in dict.fromkeys(keys) if key in needs and (key != "pca" or not stored)
    ]
    raise InputError(
        f"models: expected some of {', '.join(dict.fromkeys(known))}; found {', '.join(unknown)}"
        + "".join(f": {text}" for text in why)
    )


def without_own_gene(name: str) -> str:
    """The same model without own genes.

    >>> without_own_gene("vae_gene"), without_own_gene("gene")
    ('vae', 'gene')
    """
    return name if name == OWN_GENE else name.removesuffix(OWN_SUFFIX)


def has_own_term(name: str, config: CrossvalConfig) -> bool:
    """Whether a model adds each target's own gene."""
    model = model_of(name)
    return model.own_gene or (config.head.own_gene and model.part == "head")


def refuse_names(encoders: Iterable[str]) -> None:
    """Refuse names of encoders that are malformed, or that another model has or is made of.

    Raises
    ------
    InputError
        Naming the encoder.
    """
    for name in encoders:
        if name in ALL_ROWS or name.endswith(_TAKEN) or not NAME.fullmatch(name):
            raise InputError(
                f"encoder: expected a name of letters, digits and _.+- that does not end in "
                f"{', '.join(_TAKEN)} and is no other row's ({', '.join(ALL_ROWS)}); found {name!r}"
            )


def linear_rival(kind: str, rows: Sequence[str], declared: str | None) -> str | None:
    """The linear model of the declared family of comparisons.

    Raises
    ------
    InputError
        If the one declared is not among the models.
    """
    usual = "ridge" if kind == "regression" else "logistic"
    if declared is None:
        return usual if usual in rows else None
    declared = declared if declared in rows else RENAMED.get(declared, declared)
    if declared not in rows:
        raise InputError(
            f"linear-rival: expected one of the models {', '.join(rows)}; found {declared!r}"
        )
    return declared


def head_config(name: str, config: CrossvalConfig) -> HeadConfig:
    """Settings of a model's head: the same for all, or the published ones for its inputs."""
    model = model_of(name)
    head = config.head
    if model.variant == "_weighted":
        head = replace(head, class_weight="balanced")
    if model.part == "linear":
        return replace(head, hidden=(), linear=True, standardize=True)
    if config.recipe == "best":
        return head
    return replace(
        head,
        hidden=PUBLISHED_GENE_HEAD if model.inputs == GENES else PUBLISHED_LATENT_HEAD,
        lr=1e-3,
        weight_decay=0.0,
        dropout=0.0,
        patience=0,
        linear=False,
        validation=0.0,
        standardize=False,
        initialize_bias=False,
    )


def tuned_settings(name: str, config: CrossvalConfig) -> tuple[HeadConfig, ...]:
    """Settings that are tried for a model's head: widths by learning rates, or one."""
    head = head_config(name, config)
    if not config.tune or config.recipe != "best" or not is_head(name):
        return (head,)
    return tuple(replace(head, hidden=w, lr=r) for w in TUNED_WIDTHS for r in TUNED_RATES)


def is_head(name: str) -> bool:
    """Whether a model is fitted, and may have a hidden part."""
    model = model_of(name)
    return model.part == "head" and not model.ensemble


def variant_of(row: str) -> str | None:
    """What a row's name ends in, where it is a variant of another row.

    >>> variant_of("raw_augmented"), variant_of("raw")
    ('_augmented', None)
    """
    return next((suffix for suffix in VARIANTS if row.endswith(suffix)), None)


def plain_row(row: str) -> str:
    """The row that a variant stands beside; the row itself for others.

    >>> plain_row("raw_bootstrap"), plain_row("raw")
    ('raw', 'raw')
    """
    return row.removesuffix(variant_of(row) or "")


def augmented_pairs(rows: Sequence[str]) -> list[tuple[str, str]]:
    """Each augmented row with the row itself and with its controls."""
    return [
        (row, plain_row(row) + other)
        for row in rows
        if row.endswith(AUGMENTED)
        for other in ("", BOOTSTRAP, WEIGHTED)
        if plain_row(row) + other in rows
    ]


def fitted_as(name: str, config: CrossvalConfig) -> str:
    """Name of the model whose fit a model is, or is a part of.

    The linear model on some inputs is the linear part of the head on them, and the ensemble of an
    encoder's seeds the mean of their predictions.

    >>> from m1pipe.config import CrossvalConfig
    >>> [fitted_as(name, CrossvalConfig()) for name in ("ridge_gene", "vae_linear", "vae_ridge")]
    ['raw_gene', 'vae', 'vae_ridge']
    >>> fitted_as("vae_ensemble", CrossvalConfig())
    'vae'
    """
    model = model_of(name)
    if model.ensemble:
        return model.inputs
    if model.part != "linear" or model.with_genes or model.prior or model.inputs == NOTHING:
        return name
    if config.recipe != "best" or config.tune or config.head.own_gene:
        return name
    head = "raw" if model.inputs == GENES else model.inputs
    return head + (OWN_SUFFIX if model.own_gene else "")
