"""Cohorts of cases, their preparation, packed cohorts, and the batches that networks train on."""
