"""Metrics of dose and of deliverability."""
