"""Encoders: training, saving, loading, latents, imputation, likelihood, loadings, ONNX."""

from m1pipe.encoder.load import load_encoder
from m1pipe.encoder.train import train_encoder
from m1pipe.encoder.trained import Encoder

__all__ = ["Encoder", "load_encoder", "train_encoder"]
