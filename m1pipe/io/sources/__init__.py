"""Readers of foreign formats: ARCHS4, GCT, 10x, DEE2, quantifiers."""
