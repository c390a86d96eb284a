"""Every stream of random numbers by name: a seed and a stream make a generator.

Streams that meet in one analysis have different numbers, so that no two draws share theirs. To
change a number is to change results.
"""

import numpy as np

# quality reports
QUALITY_DRAWS = 1
QUALITY_HALVES = 2
SHUFFLED_GENES = 3
CORRUPTED_LEVELS = 4
MMD_PERMUTATIONS = 5
UTILITY_BOOTSTRAP = 7
SHUFFLED_COMPONENTS = 8
COMPONENT_GENES = 9
FLOOR_LABELS = 10
GAUSSIAN_COPULA = 11
FACTOR_ANALYSIS = 12
PCA_MIXTURE = 13
CORRELATED_GENES = 14
MEMBERSHIP_ATTACKS = 15
CAMDA_ROWS = 16

# latents and synthetic samples
MIXTURE_ROWS = 21
MIXTURE_LATENTS = 22
GENERATED_LATENTS = 23
BOOTSTRAPPED_ROWS = 31
AUGMENTING_LATENTS = 32

# data
SHOWN_ROWS = 41
HALVES = 53
MEASURED_ROWS = 61
THINNED_DEPTHS = 71
DEPTH_RATIO = 72
THINNED_COUNTS = 73

# sweeps
SWEEP_TRIALS = 53

# simulations, which meet none of the above
EXPRESSION_TRUTH = 31
EXPRESSION_SAMPLES = 32
CONTRASTS_TRUTH = 47
CONTRASTS_COUNTS = 48
COUNTS_TRUTH = 71
COUNTS_CELLS = 72
M1_COUNTS = 74

# added to a seed
CONFORMAL_SPLIT = 1
VALIDATION_SPLIT = 1
ROW_JITTER = 1
_NETWORKS = 1_000_003


def rng(seed: int, *keys: int) -> np.random.Generator:
    """Generator of a stream.

    Parameters
    ----------
    seed : int
    *keys : int
        A stream of this module, and what tells its parts from one another.
    """
    return np.random.default_rng([seed, *keys])


def derived(*keys: int) -> int:
    """A 32-bit seed from numbers of any size."""
    return int(np.random.SeedSequence(keys).generate_state(1)[0])


def of_network(seed: int, number: int) -> int:
    """Seed of one of a head's networks; the first has the head's own."""
    return seed + _NETWORKS * number
