"""Interactive planning by wish: a session that keeps a patient in memory, and the local web page that shows it."""
