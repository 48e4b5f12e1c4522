"""The training loop: batches, evaluation, metrics, checkpoints, run directories."""
