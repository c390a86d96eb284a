"""scikit-learn faces of the models: a transformer, a regressor and a classifier."""

from m1pipe.estimators.feedforward import FeedForwardClassifier, FeedForwardRegressor
from m1pipe.estimators.vae import VAE

__all__ = ["VAE", "FeedForwardClassifier", "FeedForwardRegressor"]
