"""Output: the plan report and its figures, DICOM objects, and the delivery check."""
