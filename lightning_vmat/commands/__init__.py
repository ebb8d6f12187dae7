"""What each `vmat` command does."""
