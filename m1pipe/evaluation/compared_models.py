"""The models of a comparison: which there are, and what each one's name stands for."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from m1pipe.config import CrossvalConfig, HeadConfig
from m1pipe.errors import InputError, did_you_mean
from m1pipe.evaluation.encoders import NAME, ComparedEncoder

Pair = tuple[str, str]
HeadKind = Literal["constant", "linear", "linear_prior", "network", "ensemble"]
Variant = Literal["weighted", "bootstrap", "augmented"]

CONSTANTS = ("mean", "prior", "stratum_mean")
GENES, NOTHING = "genes", "nothing"
_ON_GENES: dict[str, HeadKind] = {
    "raw": "network",
    "ridge": "linear",
    "logistic": "linear",
    "ridge_prior": "linear_prior",
    "logistic_prior": "linear_prior",
    "transfer_ridge": "linear",
    "transfer_logistic": "linear",
}
LINEAR_TRANSFER = ("transfer_ridge", "transfer_logistic")
_SUFFIXES: dict[str, HeadKind] = {"_linear": "linear", "_ridge": "linear", "_ensemble": "ensemble"}
_OWN, _TRANSFER = "_gene", "_transfer"
SCORE = "source_score"
VARIANTS: tuple[Variant, ...] = ("weighted", "bootstrap", "augmented")
_VARIANT_OF: dict[str, Variant] = {f"_{variant}": variant for variant in VARIANTS}
RENAMED = {"pca_ridge": "pca_linear", "pca_logistic": "pca_linear"}
"""Names of version 0.1 that are still understood."""
RESERVED = (*CONSTANTS, *_ON_GENES, "pca", "pca_fold", *RENAMED, "gene", GENES, NOTHING, SCORE)
_RESERVED_ENDS = (_OWN, _TRANSFER, *_SUFFIXES, "_prior", *_VARIANT_OF)
PUBLISHED_GENE_HEAD = (256, 32)
PUBLISHED_LATENT_HEAD = (32,)
TUNED_WIDTHS = ((64,), (256,), (1024,))
TUNED_RATES = (3e-4, 1e-3, 3e-3)


@dataclass(frozen=True)
class Model:
    """What a model's name stands for.

    Attributes
    ----------
    name : str
    inputs : tuple of str
        What it is fitted to, side by side: "genes", "pca", "pca_fold", the name of an encoder.
        Empty for a constant, and for own genes alone.
    head : str
        "constant"; "linear", a penalised linear map; "linear_prior", one whose coefficients have
        the covariance of the PCA as their prior; "network", a linear map and a hidden part;
        "ensemble", the mean prediction of the networks on an encoder's seeds.
    own_gene : bool
        Whether each level's own gene has a term.
    transfer : bool
        Whether a score that was fitted to other studies' labels has a term.
    variant : str or None
        Of the training rows: "weighted", drawn again ("bootstrap"), or with synthetic samples
        ("augmented").
    """

    name: str
    inputs: tuple[str, ...]
    head: HeadKind
    own_gene: bool = False
    transfer: bool = False
    variant: Variant | None = None

    @property
    def source(self) -> str:
        """The inputs that others may stand beside: all but the genes, where there are several."""
        return self.inputs[-1] if self.inputs else NOTHING

    @property
    def adds_genes(self) -> bool:
        """Whether the genes stand beside the inputs."""
        return len(self.inputs) > 1

    def fitted_as(self, config: CrossvalConfig) -> str:
        """Name of the model whose fit this one is, or is a part of.

        The linear model on some inputs is the linear part of the network on them, and the ensemble
        of an encoder's seeds the mean of their predictions.

        >>> names = ("ridge_gene", "vae_linear", "vae_ridge", "vae_ensemble")
        >>> [parse_model(name).fitted_as(CrossvalConfig()) for name in names]
        ['raw_gene', 'vae', 'vae_ridge', 'vae']
        """
        if self.head == "ensemble":
            return self.source
        if self.head != "linear" or len(self.inputs) != 1:
            return self.name
        if config.recipe != "best" or config.tune or config.head.own_gene:
            return self.name
        network = "raw" if self.source == GENES else self.source
        return network + (_OWN if self.own_gene else "") + (_TRANSFER if self.transfer else "")


def parse_model(name: str, encoders: Collection[str] = ()) -> Model:
    """What a name stands for; one that is not of `RESERVED` is an encoder's, or made of it.

    >>> model = parse_model("vae_ridge_gene")
    >>> model.inputs, model.head, model.own_gene
    (('genes', 'vae'), 'linear', True)
    >>> model = parse_model("transfer_logistic")
    >>> model.inputs, model.head, model.transfer
    (('genes',), 'linear', True)
    >>> parse_model("gene").inputs, parse_model("raw_augmented").variant
    ((), 'augmented')
    """
    if name in encoders:
        return Model(name, (name,), "network")
    if name in CONSTANTS:
        return Model(name, (), "constant")
    if name == "gene":
        return Model(name, (), "linear", own_gene=True)
    base, variant = name, None
    for end, kind in _VARIANT_OF.items():
        if name.endswith(end):
            base, variant = name.removesuffix(end), kind
    own, transfer = base.endswith(_OWN), base.endswith(_TRANSFER) or base in LINEAR_TRANSFER
    base = base.removesuffix(_OWN).removesuffix(_TRANSFER)
    if base in _ON_GENES:
        return Model(name, (GENES,), _ON_GENES[base], own, transfer, variant)
    for end, head in _SUFFIXES.items():
        if base.endswith(end) and base not in encoders:
            beside = (GENES,) if end == "_ridge" else ()
            return Model(name, (*beside, base.removesuffix(end)), head, own, transfer, variant)
    return Model(name, (base,), "network", own, transfer, variant)


def ladder(
    kind: str,
    encoders: Sequence[ComparedEncoder],
    config: CrossvalConfig,
    *,
    strata: bool = False,
    own_genes: bool = False,
    sources: bool = False,
) -> tuple[Model, ...]:
    """The models of a comparison, the constant first and the encoders last.

    Parameters
    ----------
    kind : str
        Kind of the targets.
    encoders : sequence of ComparedEncoder
        Always models of their own.
    config : CrossvalConfig
        `models`, the others to run (None: the usual ones), and `augment`: whether the network on
        the genes and every encoder have their variants beside them.
    strata : bool
        Whether the strata of all samples are known: levels may then have a `stratum_mean`.
    own_genes : bool
        Whether targets know a gene that X has: `gene`, and NAME_gene beside others.
    sources : bool
        Whether there is a score of other studies' labels: `transfer_ridge` or
        `transfer_logistic`, and NAME_transfer beside encoders.

    Returns
    -------
    tuple of Model
        The constant (the training mean, or the prior) is in it whether named or not.

    Raises
    ------
    InputError
        If a model is not known for such targets, or nothing is there to have variants.
    """
    stored = any(entry.frozen for entry in encoders)
    names = tuple(entry.name for entry in encoders)
    pca = "pca" if stored else "pca_fold"
    own_genes = own_genes and kind == "regression"
    usual = _usual(kind, pca, encoders, strata=strata, own_genes=own_genes, sources=sources)
    known = (*usual, *_others(kind, names, stored=stored, own_genes=own_genes, sources=sources))
    chosen = usual
    if config.models is not None:
        chosen = tuple(current_name(name, encoders) for name in config.models)
    _refuse_unknown(chosen, (*known, *names), has_encoders=bool(names))
    found = (*(name for name in known if name in (*chosen, known[0])), *names)
    if config.augment is not None:
        found = _with_variants(found, names)
    return tuple(parse_model(name, names) for name in found)


def _usual(
    kind: str,
    pca: str,
    encoders: Sequence[ComparedEncoder],
    *,
    strata: bool,
    own_genes: bool,
    sources: bool,
) -> tuple[str, ...]:
    """Models that are run where none are named, but the encoders themselves."""
    names = [entry.name for entry in encoders]
    levels = kind == "regression"
    constants = ("mean", *(("stratum_mean",) if strata else ())) if levels else ("prior",)
    linear = "ridge" if levels else "logistic"
    beside = ("_linear", "_ridge") if levels else ("_linear",)
    own = ("gene", *(name + _OWN for name in (linear, pca, *names))) if own_genes else ()
    transfer = (f"transfer_{linear}", *(name + _TRANSFER for name in names)) if sources else ()
    return (
        *(*constants, linear, f"{pca}_linear", "raw", pca, *own, *transfer),
        *(name + end for name in names for end in beside),
        *(f"{entry.name}_ensemble" for entry in encoders if entry.n_seeds > 1),
    )


def _others(
    kind: str, encoders: Sequence[str], *, stored: bool, own_genes: bool, sources: bool
) -> tuple[str, ...]:
    """Models that are run where they are named."""
    levels = kind == "regression"
    pca = "pca" if stored else "pca_fold"
    found = ["ridge_prior" if levels else "logistic_prior"]
    found += [] if levels else [f"{name}_ridge" for name in encoders]  # five logistic regressions
    found += ["pca_fold_linear", "pca_fold"] if stored else []
    if sources:
        both = ["raw", *(name + end for name in encoders for end in ("_linear", "_ridge"))]
        both += ["pca", "pca_linear"] if stored else []
        found += [name + _TRANSFER for name in both]
    if own_genes:
        linear = [name + end for name in encoders for end in ("_linear", "_ridge")]
        found += [name + _OWN for name in ("raw", f"{pca}_linear", *linear)]
    return tuple(found)


def current_name(name: str, encoders: Sequence[ComparedEncoder]) -> str:
    """A model's present name; without a frozen encoder `pca` is that of the training fold."""
    name = RENAMED.get(name, name)
    stored = any(entry.frozen for entry in encoders)
    if stored or parse_model(name, [entry.name for entry in encoders]).source != "pca":
        return name
    return name.replace("pca", "pca_fold", 1)


def _with_variants(models: Sequence[str], encoders: Sequence[str]) -> tuple[str, ...]:
    """The models, and beside each plain network its variants; those of raw behind all others."""
    if "raw" not in models and not encoders:
        raise InputError("augment: expected the model raw or an encoder; found neither: add one")
    plain = [name for name in models if name not in encoders]
    found = [*plain, *("raw" + end for end in _VARIANT_OF if "raw" in models)]
    return (*found, *(name + end for name in encoders for end in ("", *_VARIANT_OF)))


def _refuse_unknown(
    chosen: Sequence[str], known: Sequence[str], *, has_encoders: bool = True
) -> None:
    unknown = [parse_model(name) for name in chosen if name not in known]
    if not unknown:
        return
    needs = {
        "stratum_mean": "stratum_mean needs --stratify, and levels to predict",
        "transfer": "transfer needs labels of other studies (--source)",
        "ensemble": "_ensemble needs an encoder of several seeds (NAME=RUN1,RUN2)",
        "gene": "gene needs a column gene_id of Y's annotations that names genes of X",
    }
    keys = [
        "gene"
        if model.own_gene
        else "transfer"
        if model.transfer
        else "ensemble"
        if model.head == "ensemble"
        else model.name
        for model in unknown
    ]
    why = [needs[key] for key in dict.fromkeys(keys) if key in needs]
    near = did_you_mean(unknown[0].name, known)
    if not has_encoders:
        near += ": models on latents need their encoder (--encoder NAME=RUN)"
    raise InputError(
        f"models: expected some of {', '.join(dict.fromkeys(known))}; found "
        + ", ".join(model.name for model in unknown)
        + ("".join(f": {text}" for text in why) or near)
    )


def refuse_names(encoders: Iterable[str]) -> None:
    """Refuse names of encoders that are malformed, or that another model has or is made of.

    Raises
    ------
    InputError
        Naming the encoder.
    """
    for name in encoders:
        if name in RESERVED or name.endswith(_RESERVED_ENDS) or not NAME.fullmatch(name):
            raise InputError(
                f"encoder: expected a name of letters, digits and _.+- that does not end in "
                f"{', '.join(_RESERVED_ENDS)} and is no other model's ({', '.join(RESERVED)}); "
                f"found {name!r}"
            )


def linear_rival(kind: str, models: Collection[str], declared: str | None) -> str | None:
    """The linear model of the declared family of comparisons.

    Raises
    ------
    InputError
        If the one declared is not among the models.
    """
    usual = "ridge" if kind == "regression" else "logistic"
    if declared is None:
        return usual if usual in models else None
    declared = declared if declared in models else RENAMED.get(declared, declared)
    if declared not in models:
        raise InputError(
            f"--linear-rival: expected one of the models {', '.join(models)}; found {declared!r}"
        )
    return declared


def augmented_pairs(models: Sequence[Model]) -> list[Pair]:
    """Each model with synthetic samples against the one without them, and against its controls."""
    return _pairs(
        models,
        [
            (model, replace(model, variant=other))
            for model in models
            if model.variant == "augmented"
            for other in (None, "bootstrap", "weighted")
        ],
    )


def transfer_pairs(models: Sequence[Model], rival: str | None) -> list[Pair]:
    """Each model with a score of other studies' labels against the linear model without it.

    And each encoder's against the linear model with it.
    """
    scored = [model for model in models if model.transfer]
    linear = next((m.name for m in scored if m.name in LINEAR_TRANSFER), None)
    pairs = [(model.name, rival) for model in scored]
    pairs += [(model.name, linear) for model in scored if model.head == "network"]
    return [(a, b) for a, b in pairs if b is not None and a != b]


def own_gene_pairs(models: Sequence[Model]) -> list[Pair]:
    """Each model with own genes against the one without them."""
    with_own = [model for model in models if model.own_gene]
    return _pairs(models, [(model, replace(model, own_gene=False)) for model in with_own])


def _pairs(models: Sequence[Model], wanted: Iterable[tuple[Model, Model]]) -> list[Pair]:
    """Names of those pairs whose second is among the models, whatever it is called."""
    names = {replace(model, name=""): model.name for model in models}
    found = [(a.name, names.get(replace(b, name=""))) for a, b in wanted]
    return [(a, b) for a, b in found if b is not None]


def has_own_term(model: Model, config: CrossvalConfig) -> bool:
    """Whether a model adds each target's own gene."""
    return model.own_gene or (config.head.own_gene and model.head in ("network", "ensemble"))


def head_config(model: Model, config: CrossvalConfig) -> HeadConfig:
    """Settings of a model's head: the same for all, or the published ones for its inputs."""
    head = config.head
    if model.variant == "weighted":
        head = replace(head, class_weight="balanced")
    if model.head in ("linear", "linear_prior"):
        return replace(head, hidden=(), linear=True, standardize=True)
    if config.recipe == "best":
        return head
    return replace(
        head,
        hidden=PUBLISHED_GENE_HEAD if model.source == GENES else PUBLISHED_LATENT_HEAD,
        lr=1e-3,
        weight_decay=0.0,
        dropout=0.0,
        patience=0,
        linear=False,
        validation=0.0,
        standardize=False,
        initialize_bias=False,
    )


def tuned_settings(model: Model, config: CrossvalConfig) -> tuple[HeadConfig, ...]:
    """Settings that are tried for a model's head: widths by learning rates, or one."""
    head = head_config(model, config)
    if not config.tune or config.recipe != "best" or model.head != "network":
        return (head,)
    return tuple(replace(head, hidden=w, lr=r) for w in TUNED_WIDTHS for r in TUNED_RATES)
