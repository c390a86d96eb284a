"""Synthetic samples and their quality: fidelity, utility, privacy."""
