"""The training loop: batches, optimizer, schedule, checkpoints, devices, several processes."""
