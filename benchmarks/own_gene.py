"""What the own-gene term costs or gains: MSE over that of the same head without it, by seed.

    python benchmarks/own_gene.py --x genes.h5ad --y isoforms.h5ad --group line --targets 3000

For every seed (which deals the folds, starts the heads and draws the targets): the mean of the
folds' ratios, the corrected resampled interval of the difference as a share of the head's MSE,
every fold's ratio, and the share of targets whose term is on.
"""

import argparse
from collections.abc import Iterator

import numpy as np

from m1pipe import cross_validate, open_matrix
from m1pipe.config import CrossvalConfig, EncoderConfig, HeadConfig, ModelConfig
from m1pipe.evaluation.compare import fold_differences
from m1pipe.evaluation.result import CrossvalResult
from m1pipe.evaluation.significance import nadeau_bengio

HEADER = f"{'seed':>4} {'row':<16}{'ratio':>8}{'low':>8}{'high':>8}   ratio of every fold"


def main() -> None:
    args = _parse()
    print(HEADER)
    highest = []
    for seed in range(args.seeds):
        for line, high in report(run(args, seed), seed):
            highest.append(high)
            print(line, flush=True)
    print(
        f"upper 95 % bound: highest {max(highest):.3f}, at most 1.01 in "
        f"{np.mean(np.array(highest) <= 1.01):.0%} of {len(highest)}"
    )


def run(args: argparse.Namespace, seed: int) -> CrossvalResult:
    """One cross-validation of rows with and without the term."""
    targets = None
    if args.targets:
        names = open_matrix(args.y).genes
        rng = np.random.default_rng(seed)
        targets = sorted(rng.choice(names, args.targets, replace=False).tolist())
    models = ["mean"] + [name for row in args.rows for name in (row, f"{row}_gene")]
    models += ["vae_gene"] if args.vae else []
    config = CrossvalConfig(
        folds=args.folds,
        group=args.group,
        stratify=args.stratify,
        models=tuple(models),
        seed=seed,
        train_sizes=(),
        head=HeadConfig(epochs=args.epochs),
    )
    encoders = {"vae": EncoderConfig(model=ModelConfig(n_latent=16))} if args.vae else {}
    return cross_validate(args.x, args.y, targets=targets, encoders=encoders, config=config)


def report(result: CrossvalResult, seed: int) -> Iterator[tuple[str, float]]:
    """A line for every row with the term, and its upper bound."""
    for row in result.models:
        plain = row.removesuffix("_gene")
        if plain == row or plain not in result.models:
            continue
        a, b = result.losses[row], result.losses[plain]
        change = nadeau_bengio(fold_differences(a, b, result.folds), n_folds=result.n_folds)
        base = b.mean()
        low, high = 1 + change.ci_low / base, 1 + change.ci_high / base
        ratios = [
            a[0][result.folds[0] == k].mean() / b[0][result.folds[0] == k].mean()
            for k in range(result.n_folds)
        ]
        shown = " ".join(f"{r:.3f}" for r in ratios)
        line = f"{seed:>4} {row:<16}{a.mean() / base:>8.3f}{low:>8.3f}{high:>8.3f}   {shown}"
        yield line, high


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--x", required=True)
    parser.add_argument("--y", required=True)
    parser.add_argument("--group")
    parser.add_argument("--stratify")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--targets", type=int, default=0, help="drawn anew for every seed")
    parser.add_argument("--rows", nargs="+", default=["pca_fold", "ridge"])
    parser.add_argument("--vae", action="store_true", help="also an encoder trained in the folds")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
