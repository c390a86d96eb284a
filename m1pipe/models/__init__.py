"""Networks and their likelihoods in torch: no files, no pandas."""
