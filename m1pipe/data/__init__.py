"""Samples and genes in memory: names, units, normalisation, transforms, splits, targets."""
