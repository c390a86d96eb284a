"""Files in and out: open a matrix of any layout, convert, inspect, split, write h5ad."""
