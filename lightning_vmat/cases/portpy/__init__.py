"""Reader of PortPy patients."""
