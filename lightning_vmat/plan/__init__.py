"""Cases, arcs, apertures and machine limits. Imports no other part of the package but `files`."""
