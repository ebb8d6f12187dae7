"""One planned case for all tests of the export."""

from __future__ import annotations

import pytest
from planned_case import make_case, make_content

from lightning_vmat.export.content import ReportContent


@pytest.fixture(scope="session")
def content() -> ReportContent:
    return make_content(make_case())
