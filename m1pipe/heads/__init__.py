"""Prediction from latents and genes: ridge, logistic regression, networks beside them."""
