"""Cases on disk, and the readers that make them."""
