"""`m1pipe convert`: load, normalise, write."""
