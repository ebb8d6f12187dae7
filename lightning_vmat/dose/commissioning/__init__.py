"""Commissioning: a beam model fitted to a site's measurements in water."""
