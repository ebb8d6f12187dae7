"""From a case to a plan: problems, planners, leaf sequencing and aperture optimization."""
