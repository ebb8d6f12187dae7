"""Patients as scanners and planning systems write them: CT series, RTSTRUCT, RTPLAN and RTDOSE."""
