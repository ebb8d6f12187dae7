"""A beam model from what a site measured of its linac in water."""
