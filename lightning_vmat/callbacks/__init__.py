"""Lightning callbacks: run directory, checkpoints, figures, seeds, throughput, W&B and preemption."""
