"""Every setting, its default and its check.

A default is written here once: the click options and the estimators read it from these classes.
"""

from m1pipe.config.encoder import (
    Activation,
    EncoderConfig,
    LatentScale,
    Likelihood,
    ModelConfig,
    Precision,
    Schedule,
    SelectionConfig,
    TrainingConfig,
    Transform,
)
from m1pipe.config.heads import CrossvalConfig, FitConfig, HeadConfig, Recipe, Sampler

__all__ = [
    "Activation",
    "CrossvalConfig",
    "EncoderConfig",
    "FitConfig",
    "HeadConfig",
    "LatentScale",
    "Likelihood",
    "ModelConfig",
    "Precision",
    "Recipe",
    "Sampler",
    "Schedule",
    "SelectionConfig",
    "TrainingConfig",
    "Transform",
]
