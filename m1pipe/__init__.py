"""Semi-supervised latent-feature modelling (M1) of gene expression.

Names are loaded when they are first used, so that `import m1pipe` stays light (no torch).
"""

import importlib
from typing import Any

from m1pipe._version import __version__

_HOMES = {
    "VAE": "m1pipe.estimators",
    "FeedForwardRegressor": "m1pipe.estimators",
    "FeedForwardClassifier": "m1pipe.estimators",
    "VAEModule": "m1pipe.models.vae",
    "load_encoder": "m1pipe.encoder",
    "train_encoder": "m1pipe.encoder",
    "open_matrix": "m1pipe.io.reader",
    "cross_validate": "m1pipe.evaluation.crossval",
    "compare": "m1pipe.evaluation.compare",
    "fit_predictor": "m1pipe.evaluation.deploy",
    "load_predictor": "m1pipe.predictor",
    "quality": "m1pipe.synthesis.quality",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'm1pipe' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
