"""Log fold changes between conditions within studies, and gene sets enriched among them."""
