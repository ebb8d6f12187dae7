"""matRad and pyRadPlan patients."""
