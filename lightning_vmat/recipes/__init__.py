"""Thin LightningModules, one training method each: what is injected, what is called, what is logged."""
