"""What leaves the package: the plan report."""
