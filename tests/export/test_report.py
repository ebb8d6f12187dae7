"""The report is one whole file that needs no network, says what was measured, and trusts no name."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from planned_case import make_case, make_compared, make_content

from lightning_vmat.export.compared_tables import goals_side_by_side
from lightning_vmat.export.content import ComparedPlan, ReportContent
from lightning_vmat.export.figures.aperture_film import aperture_film
from lightning_vmat.export.report import render_report, write_report
from lightning_vmat.export.tables import header_facts
from lightning_vmat.planning.evaluation import as_json

HOSTILE = "<script>alert('x')</script>&\"$\\frac{1}$"
VOID = {"meta", "br", "input", "link", "img", "hr", "wbr"}


class Page(HTMLParser):
    """Collects sections, addresses and text; complains about tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self._note(attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._note(attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.texts.append(data)

    def _note(self, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.ids.append(value)
            if name in ("href", "src", "srcset", "action", "data", "poster"):
                self.addresses.append(value or "")
            assert not name.startswith("on")

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def html(content: ReportContent) -> str:
    return render_report(content)


def test_parses_with_matching_tags(html: str) -> None:
    assert Page(html).open == []


def test_nothing_is_loaded_from_outside(html: str) -> None:
    for address in Page(html).addresses:
        assert address.startswith(("data:image/webp;base64,", "data:image/png;base64,", "#"))
    assert not re.findall(r"url\((?!#)", html)
    assert "@import" not in html and "default-src 'none'" in html


def test_holds_every_section(html: str) -> None:
    page = Page(html)
    for section in ("goals", "dvh", "dose", "structures", "apertures", "delivery", "machine", "complexity", "planning"):
        assert section in page.ids
    for phrase in ("Research use only - not for clinical use", "phantom_0007", "PTV 60 Gy", "20 of 3.00 Gy",
                   "reference", "truebeam", "2026-01-02", "0.1.0", "collimator 10°", "V54 Gy", "≤ 15.0 %", "17.1 %",
                   "✗ missed", "✓ met", "22.5 mm/s", "57.0 Gy (95 %)", "82 dose evaluations",
                   "Jaws X -60 to 60 mm, Y -60 to 60 mm"):  # fmt: skip
        assert phrase in page.text, phrase


def test_x_jaws_that_do_not_exist_are_not_named() -> None:
    content = make_content(make_case(10.0, 4).with_settings(machine_name="elekta_agility"))
    assert header_facts(content)["Jaws"] == "Y -60 to 60 mm"
    assert as_json(content.case, content.result, content.evaluation)["jaws_mm"] == [None, None, -60.0, 60.0]
    assert "jaw" not in repr(content.case)
    film = aperture_film(content.case, content.result)
    assert (film.jaws[0], film.jaws[2]) == (0, film.size[0])


def test_film_shows_the_jaws() -> None:
    case = make_case(10.0, 4)
    jawed = case.with_settings(beamlets=replace(case.beamlets, jaws_mm=(-45.0, 50.0, -40.0, 35.0)))
    html = render_report(make_content(jawed))
    assert "Jaws X -45 to 50 mm, Y -40 to 35 mm" in Page(html).text
    left, top = 60 - 45 + 14, 60 - 35 + 14  # 14 mm of room around the field; units of 0.1 mm
    assert f'class="edge" x="{10 * left}" y="{10 * top}" width="950" height="750"' in html


def test_central_slice_and_one_aperture_show_without_script(html: str) -> None:
    for view, count in (("plane-axial", 40), ("cine", 12)):
        part = html[html.index(f'id="{view}"') :]
        part = part[: part.index('class="caption"' if view == "plane-axial" else "</figure>")]
        slices = re.findall(r"<svg [^>]*>", part)
        assert len(slices) == count
        assert sum(" hidden" not in tag for tag in slices) == 1


def test_hostile_names_stay_text() -> None:
    case = replace(make_case(10.0, 4, {"Rectum": HOSTILE, "PTV": "PTV <b>"}), case_id=HOSTILE, source=HOSTILE)
    content = make_content(case)
    page = Page(render_report(replace(content, compared=make_compared(content, HOSTILE))))
    assert page.tags.count("script") == 1 and page.open == []
    assert HOSTILE in page.text and "b" not in [tag for tag in page.tags if tag == "PTV"]


def test_fluence_alone_is_called_not_deliverable() -> None:
    page = Page(render_report(make_content(make_case(10.0, 4), deliverable=False)))
    assert "not deliverable" in page.text and "Fluence maps" in page.text
    assert "machine" not in page.ids


def test_two_plans_stand_side_by_side(content: ReportContent) -> None:
    page = Page(render_report(replace(content, compared=make_compared(content))))
    assert "comparison" in page.ids and page.open == []
    part = page.text[page.text.index("Compared with: RTPLAN") : page.text.index("Dose on CT")]
    for phrase in ("PTV D99 % ≥ 54.00 Gy ✓ 56.90 Gy ✓ 58.61 Gy -1.71 Gy",
                   "Rectum V54 Gy ≤ 15.0 % ✗ 17.1 % ✗ 17.6 % -0.5 %",
                   "✓ 63.90 Gy ✗ 65.82 Gy -1.92 Gy", "Objective over the whole body 400 500 -20.0 %",
                   "Clinical goals met, of 6 5 4 +1", "Machine violations 0 2 -2", "612 MU 680 MU -10.0 %",
                   "PTV 30.0 30.9 -0.9"):  # fmt: skip
        assert phrase in part, phrase


def test_a_dose_alone_is_compared_as_far_as_it_goes(content: ReportContent) -> None:
    dose = replace(make_compared(content).evaluation, complexity={}, violations={})
    page = Page(render_report(replace(content, compared=ComparedPlan("clinical dose", dose))))
    dash = chr(0x2013)
    assert f"Machine violations 0 {dash} {dash}" in page.text and f"612 MU {dash} {dash}" in page.text


def test_equal_plans_differ_nowhere(content: ReportContent) -> None:
    html = render_report(replace(content, compared=ComparedPlan("start", content.evaluation)))
    assert not re.findall(r'class="number (better|worse)"', html)
    assert not re.findall(r'<td class="number ?">[+-]', html[: html.index('id="dose"')])


def test_what_is_better_follows_the_goal(content: ReportContent) -> None:
    other = make_compared(content).evaluation
    rows = {(name, row.label): row.better for name, row in goals_side_by_side(content.evaluation.goals, other.goals)}
    assert rows["PTV", "D99 %"] is False and rows["PTV", "D2 %"] is True  # less dose: worse coverage, less hot
    assert rows["Rectum", "V54 Gy"] is True


def test_small_enough_and_repeatable(content: ReportContent, html: str) -> None:
    assert len(html.encode()) < 8_000_000
    assert render_report(content) == html


def test_written_whole_or_not_at_all(
    content: ReportContent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, html: str
) -> None:
    target = tmp_path / "report.html"
    write_report(target, content)
    assert target.read_text(encoding="utf-8") == html

    def full_disk(self: Path, *args: object, **kwargs: object) -> int:
        raise OSError(28, "No space left on device")

    write: Callable[..., int] = full_disk
    monkeypatch.setattr(Path, "write_text", write)
    with pytest.raises(OSError, match="No space"):
        write_report(target, content)
    monkeypatch.undo()
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    assert target.read_text(encoding="utf-8") == html


def test_dose_must_be_finite_and_on_the_grid(content: ReportContent) -> None:
    shape = content.case.grid.shape
    with pytest.raises(ValueError, match=r"phantom_0007.*NaN"):
        replace(content, evaluation=replace(content.evaluation, dose_gy=torch.full(shape, float("nan"))))
    with pytest.raises(ValueError, match=r"phantom_0007.*shape"):
        replace(content, evaluation=replace(content.evaluation, dose_gy=torch.zeros(3, 3, 3)))
