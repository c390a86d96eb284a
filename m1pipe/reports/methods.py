"""The methods paragraph: what was done, in past tense, with references in order of mention."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from m1pipe.evaluation.result import CrossvalResult
from m1pipe.reports.numbers import count, listing
from m1pipe.reports.terms import metric_of, spoken
from m1pipe.reports.words import n_seeds

LAWS = {
    "gmm": "latents drawn from a mixture of normal laws a class",
    "prior": "latents drawn from the prior",
    "posterior": "latents drawn about those of these rows themselves",
}
REFERENCES = {
    "m1": "Kingma DP, Mohamed S, Rezende DJ, Welling M. Semi-supervised learning with deep "
    "generative models. Advances in Neural Information Processing Systems 27, 2014. "
    "arXiv:1406.5298.",
    "vae": "Kingma DP, Welling M. Auto-encoding variational Bayes. International Conference on "
    "Learning Representations, 2014. arXiv:1312.6114.",
    "nadeau": "Nadeau C, Bengio Y. Inference for the generalization error. Machine Learning "
    "2003;52:239-281. doi:10.1023/A:1024068626366.",
    "bouckaert": "Bouckaert RR, Frank E. Evaluating the replicability of significance tests for "
    "comparing learning algorithms. PAKDD 2004, LNCS 3056:3-12. "
    "doi:10.1007/978-3-540-24775-3_3.",
    "holm": "Holm S. A simple sequentially rejective multiple test procedure. Scandinavian "
    "Journal of Statistics 1979;6:65-70.",
    "wilcoxon": "Wilcoxon F. Individual comparisons by ranking methods. Biometrics Bulletin "
    "1945;1:80-83. doi:10.2307/3001968.",
    "burda": "Burda Y, Grosse R, Salakhutdinov R. Importance weighted autoencoders. "
    "International Conference on Learning Representations, 2016. arXiv:1509.00519.",
}


@dataclass
class Citations:
    """Numbers references by their first mention."""

    keys: list[str] = field(default_factory=list)

    def cite(self, *keys: str) -> str:
        """Bracketed numbers of the references of these keys."""
        self.keys += [key for key in keys if key not in self.keys]
        return f"[{', '.join(str(self.keys.index(key) + 1) for key in keys)}]"

    def listed(self) -> list[str]:
        """Texts of all references mentioned, in order."""
        return [REFERENCES[key] for key in self.keys]


def methods_text(
    result: CrossvalResult, *, version: str, settings: Mapping[str, Any]
) -> tuple[str, list[str]]:
    """Methods paragraph and its references.

    Parameters
    ----------
    result : CrossvalResult
        What was done.
    version : str
        Of m1pipe.
    settings : mapping
        Configuration of the cross-validation: folds, seed, recipe, head.

    Returns
    -------
    text : str
        One paragraph.
    references : list of str
        Those it mentions, by number.
    """
    citations = Citations()
    sentences = [
        _task(result.info),
        _representation(result, citations),
        _design(result, settings),
        _heads(result, settings),
        _augmentation(result.info),
        _tests(result, citations),
        f"All computations used m1pipe {version}.",
    ]
    return " ".join(text for text in sentences if text), citations.listed()


def _representation(result: CrossvalResult, citations: Citations) -> str:
    """What the encoders are and how they were used."""
    encoders = result.info.get("encoders", {})
    if not encoders:
        return ""
    kinds = [_encoder_phrase(result, name, facts) for name, facts in encoders.items()]
    return (
        f"Latent features were taken from {listing(kinds)} {citations.cite('vae')}; the encoders "
        "were frozen and the posterior means of the labelled samples were given to a "
        f"discriminative model (the latent-feature discriminative model M1 {citations.cite('m1')})."
    )


def _encoder_phrase(result: CrossvalResult, name: str, facts: Mapping[str, Any]) -> str:
    kind = "an autoencoder" if facts.get("beta") == 0 else "a variational autoencoder"
    width = f" with {facts['n_latent']} latent units" if facts.get("n_latent") else ""
    sizes = sorted({run["n_train"] for run in facts.get("runs", []) if run.get("n_train")})
    where = f" trained on {count(sizes[0], 'sample')}" if len(sizes) == 1 else ""
    if facts.get("mode") == "fold":
        where = " trained inside each training fold"
    return f"{kind}{width}{where} ({name}, {count(n_seeds(result, name), 'seed')})"


def _design(result: CrossvalResult, settings: Mapping[str, Any]) -> str:
    """Folds, strata, groups, what was fitted where."""
    info = result.info
    if info.get("leave_out"):
        return (
            f"Each of the {result.n_folds} values of {info['leave_out']} was left out in turn: all "
            f"models were trained on the other samples and tested on it ({len(result.samples):,} "
            "samples in all). Everything fitted within the comparison saw training rows only."
        )
    repeats = f", repeated {result.n_repeats} times" if result.n_repeats > 1 else ""
    strata = f", stratified by {info['stratify']}" if info.get("stratify") else ""
    donors = ""
    if info.get("n_groups"):
        donors = f", with the samples of each of {info['n_groups']:,} donors kept in one fold"
    seed = f" (seed {settings['seed']})" if settings.get("seed") is not None else ""
    return (
        f"All models were compared on the same {result.n_folds} folds{repeats}{strata}{donors}"
        f"{seed} of {len(result.samples):,} samples. Everything fitted within the "
        "comparison (scaling, penalties, networks, stopping) saw training rows only."
    )


def _task(info: Mapping[str, Any]) -> str:
    """What was predicted from what, as a sentence."""
    if not info.get("n_features"):
        return ""
    target = str(info.get("label") or count(info.get("n_targets"), "label"))
    if info.get("kind") == "regression":
        target = f"the levels of {count(info.get('n_targets'), 'target')}"
    target += _in_units(info.get("target_units"))
    genes = f"{info['n_features']:,} genes{_in_units(info.get('units'))}"
    return f"The task was to predict {target} from the levels of {genes}."


def _in_units(units: Any) -> str:
    """Units in one pair of brackets: ` (log2_normalized1, target sum 10000)`."""
    return f" ({str(units).replace(' (', ', ').rstrip(')')})" if units else ""


def _heads(result: CrossvalResult, settings: Mapping[str, Any]) -> str:
    """The heads, the same for every model."""
    head = settings.get("head") or {}
    if not head:
        return ""
    if settings.get("recipe") == "published":
        return (
            "Feed-forward networks had the published sizes (256 and 32 hidden units on genes, "
            "32 on latents) on inputs that were not standardised."
        )
    levels = result.info.get("kind") == "regression"
    exact = (
        "ridge regression, its penalty by leave-one-out"
        if levels
        else ("penalised logistic regression, its penalty by inner folds")
    )
    if levels and result.info.get("n_groups"):
        exact = "ridge regression, its penalty by leaving out one group after another"
    start = (
        f"Every model is a {exact}, on inputs that were scaled by the training rows (genes each "
    )
    start += "by its own spread, latents and PCA scores all by one number)"
    widths = " and ".join(str(w) for w in head.get("hidden", ()))
    if not widths:
        return start + "."
    start += ". Beside it stands a network that starts at zero and is kept for as many epochs as "
    start += "lowered the loss on inner folds of the training rows, or left out. "
    text = f"{start}Networks had {widths} hidden units, a learning rate of {head['lr']:g}"
    if (result.info.get("n_settings") or 1) > 1:
        text = (
            f"{start}Width and learning rate of every network were chosen among "
            f"{result.info['n_settings']} settings by its loss on inner folds of each training "
            "fold (nested)"
        )
        if any("n_latent" in line for line in result.info.get("chosen") or []):
            text += ", after latent size and KL weight of the encoders in the same way"
    text += f", batches of {head['batch_size']} and at most {head['epochs']} epochs"
    return text + "."


def _augmentation(info: Mapping[str, Any]) -> str:
    """Where added samples came from, and what stands against them."""
    augment = info.get("augment")
    if augment is None:
        return ""
    to = "filled up to the largest class" if augment == "balance" else f"brought to {augment} times"
    return (
        "Rows named _augmented were trained on synthetic samples as well, of a conditional "
        "generator that was trained inside each training fold on the rows that the networks take "
        f"steps on ({LAWS[info.get('augment_sampler', 'gmm')]}); classes were {to}"
        f"{'' if augment == 'balance' else ' their size'}. As controls "
        "as many of these rows were drawn again with replacement (_bootstrap), or classes weighed "
        "alike in the loss (_weighted). Scaling and the choice of settings saw real training rows "
        "only."
    )


def _tests(result: CrossvalResult, citations: Citations) -> str:
    """The headline test, the family, and what describes only."""
    metric = metric_of(result.metric).label
    against = [m for m in ("raw", result.info.get("linear_rival")) if m in result.models]
    rivals = f"each encoder against {listing([*against, spoken(result.models[0])])}"
    if result.info.get("augment") is not None:
        rivals += ", each augmented row against the row itself and its two controls"
    cited = ("nadeau", "bouckaert") if result.n_repeats > 1 else ("nadeau",)
    test = (
        f"the corrected resampled t-test over the fold means {citations.cite(*cited)}, two-sided, "
        "with a test-to-training ratio of 1 / (k - 1)"
        if not result.info.get("leave_out")
        else "a two-sided sign-flip test over the strata that were left out"
    )
    text = (
        f"The headline loss was the {metric} per sample. Models were compared by {test}; "
        f"p values of the declared family ({rivals}) were adjusted by Holm's method "
        f"{citations.cite('holm')}. Paired t-tests over samples and Wilcoxon's signed-rank test "
        f"{citations.cite('wilcoxon')} describe the models fitted here, given their training "
        "sets, and carry no claim."
    )
    if result.info.get("encoders"):
        text += (
            " Latent units were counted as active where the mean KL divergence exceeded 0.05 "
            f"nats and where the variance of the posterior mean exceeded 0.01 "
            f"{citations.cite('burda')}."
        )
    return text
