"""LightningModules, one for each training method, and the use of their trained weights."""
