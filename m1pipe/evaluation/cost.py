"""What a cross-validation would take, said before it is begun."""

from itertools import pairwise

from m1pipe.config import CrossvalConfig
from m1pipe.errors import counted
from m1pipe.evaluation.compared_models import (
    GENES,
    Model,
    head_config,
    parse_model,
)
from m1pipe.evaluation.encoders import ComparedEncoder, encoder_settings
from m1pipe.evaluation.problem import Problem
from m1pipe.heads.inner_folds import MANY_ROWS

MEGABYTE = 1e6


def cost_text(problem: Problem) -> str:
    """Design, models with their fits and sizes, and an estimate of the memory, as lines of text."""
    targets, config = problem.targets, problem.config
    n_train = round(targets.n * (1 - 1 / problem.n_folds))
    repeats = counted(config.repeats, "repeat")
    if config.train_sizes:
        repeats += f", each again with {', '.join(map(str, config.train_sizes))} training samples"
        repeats += f" (each drawn {config.draws} times)" if config.draws > 1 else ""
    lines = [
        f"{targets.n:,} samples x {problem.matrix.n_genes:,} genes, {len(targets.names):,} "
        f"{'classes' if targets.is_classes else 'targets'}; {problem.n_folds} folds x "
        f"{repeats}, about {n_train:,} training samples each",
        f"{'model':<16}{'inputs':>8}{'fits':>6}{'parameters':>14}{'most steps a fit':>18}",
    ]
    lines += [_model_line(problem, model, n_train) for model in problem.models]
    lines += [_encoder_line(problem, entry) for entry in problem.encoders if entry.in_fold]
    if any(model.variant for model in problem.models):
        n_made = problem.n_folds * config.repeats * n_parts(config)
        lines.append(f"augment: trains {n_made} generators inside the folds")
    return "\n".join([*lines, f"memory: about {memory_bytes(problem) / MEGABYTE:,.0f} MB"])


def _encoder_line(problem: Problem, entry: ComparedEncoder) -> str:
    """How many encoders are trained inside the folds, those of the choice apart.

    Each draw of the training rows has its own: an encoder sees the rows of its draw alone, and the
    samples without a label.
    """
    n_tried = len(encoder_settings(entry, problem.config)) if problem.can_tune else 1
    n_splits = problem.n_fits(parse_model(entry.name)) * n_parts(problem.config)
    text = f"{entry.name}: trains {n_splits} encoders inside the folds"
    if n_tried > 1:
        text += f", and {n_tried * n_splits // entry.n_seeds} more to choose their settings"
    return text


def n_parts(config: CrossvalConfig) -> int:
    """Sets of training rows of one fold: all of them, and the draws of every size.

    >>> n_parts(CrossvalConfig(train_sizes=(20, 50), draws=10))
    21
    """
    return 1 + len(config.train_sizes) * config.draws


def input_width(problem: Problem, model: Model) -> int:
    """Number of features that a model is fitted on."""
    if not model.inputs:
        return int(model.own_gene)
    widths = {encoder.name: encoder.n_latent for encoder in problem.encoders}
    usual = next(iter(widths.values()), min(32, problem.matrix.n_genes))
    widths[GENES] = problem.matrix.n_genes
    n_score = problem.targets.n_outputs if model.transfer else 0
    return sum(widths.get(name, usual) for name in model.inputs) + n_score


def n_parameters(problem: Problem, model: Model) -> int:
    """Values that are fitted in one fit of a model, without those of an encoder."""
    n_in, n_out = input_width(problem, model), problem.targets.n_outputs
    if model.head == "constant":
        return n_out
    if model.head == "ensemble":
        return 0
    head = head_config(model, problem.config)
    n_linear = (n_in + 1) * n_out if head.linear else 0
    if not head.hidden:
        return n_linear
    return n_linear + sum((a + 1) * b for a, b in pairwise((n_in, *head.hidden, n_out)))


def fold_bytes(problem: Problem) -> int:
    """Inputs and weights of all heads of one fold, those of inner folds and of Adam included.

    Where levels are missing, the genes as well: what they are filled in with is the fold's.
    """
    whole = max(1, round(problem.targets.n * (1 - 1 / problem.n_folds)))
    n_train = problem.train_size or whole
    heads = 0
    for model in fits(problem).values():
        head = head_config(model, problem.config)
        n_inputs, n_out = min(input_width(problem, model), n_train), problem.targets.n_outputs
        n_inner = 1 if n_train >= MANY_ROWS else round(1 / (head.validation or 0.2))
        linear = 4 * (1 + (n_inner if head.hidden else 0)) * n_inputs * n_out
        network = sum((a + 1) * b for a, b in pairwise((n_inputs, *head.hidden, n_out)))
        networks = 12 * n_inner * network if head.hidden else 0
        heads += problem.n_seeds(model) * (4 * n_train * n_inputs + linear + networks)
    filled = 4 * problem.targets.n * problem.matrix.n_genes if problem.n_missing else 0
    return heads + filled


def fits(problem: Problem) -> dict[str, Model]:
    """What is fitted in a fold, by `Model.fitted_as`: the model that stands for it.

    The linear part of a head is fitted with the head, and an ensemble has no fit of its own.
    """
    wanted: dict[str, Model] = {}
    for model in problem.models:
        key = model.fitted_as(problem.config)
        if model.head in ("constant", "ensemble"):
            continue
        if key not in wanted or model.head == "network":
            wanted[key] = model
    return wanted


def memory_bytes(problem: Problem) -> int:
    """Rough peak with one fold at a time: X, Y, its heads, a test fold and its predictions."""
    n, p, t = problem.targets.n, problem.matrix.n_genes, len(problem.targets.names)
    copies = 1 if problem.config.augment is None else 3  # with added rows behind it, and those
    data = 4 * copies * n * p + problem.targets.values.nbytes
    fit = fold_bytes(problem)
    if any(model.head != "constant" for model in problem.models):
        fit += 16 * n * min(n, p) + 12 * n * p + 4 * n * t  # rotations of the genes, one at a time
    data += 0 if problem.own is None else problem.own.values.nbytes
    n_seeds = max(problem.n_seeds(model) for model in problem.models)
    return data + fit + 4 * (2 + n_seeds) * (n // problem.n_folds + 1) * t


def _model_line(problem: Problem, model: Model, n_train: int) -> str:
    n_in = input_width(problem, model)
    steps = "-"
    if model.head == "network":
        head = head_config(model, problem.config)
        steps = f"{head.epochs * -(-n_train // head.batch_size):,}"
    return (
        f"{model.name:<16}{f'{n_in:,}' if n_in else '-':>8}{problem.n_fits(model):>6}"
        f"{n_parameters(problem, model):>14,}{steps:>18}"
    )
