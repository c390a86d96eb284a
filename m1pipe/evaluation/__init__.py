"""Cross-validated comparison of models: folds, leakage, metrics, tests between models."""
