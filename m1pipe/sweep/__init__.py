"""Many configurations of an encoder on one data set: what is tried, how each does."""
