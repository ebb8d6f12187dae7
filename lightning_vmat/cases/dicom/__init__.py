"""Reads patients from DICOM: CT series, RTSTRUCT, RTPLAN and RTDOSE."""
