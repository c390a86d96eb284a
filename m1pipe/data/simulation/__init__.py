"""Simulated expression with a known truth."""
