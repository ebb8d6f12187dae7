"""PortPy patients."""
