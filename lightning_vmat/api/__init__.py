"""What `vmat plan` does, as functions for a notebook or a script; `lightning_vmat` itself re-exports them."""
