"""What happens beside training: the run directory, checkpoints, figures."""
