"""Clusters of samples in latent space."""
