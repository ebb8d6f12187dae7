"""Cases on disk, cohorts, phantoms and readers, and the batches that networks train on."""
