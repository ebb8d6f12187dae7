"""Which ROI becomes which structure: exact names, then types, then loose names; never an optimization structure."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import yaml

from lightning_vmat.cases.dicom.roi_names import RoiNames, load_roi_names
from lightning_vmat.cases.dicom.rtstruct import Roi
from lightning_vmat.objectives.protocol import load_protocol

NAMES = load_roi_names()
SQUARE = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0]])
PROTOCOLS = sorted(
    path.name.removesuffix(".yaml") for path in (resources.files("lightning_vmat.objectives") / "protocols").iterdir()
)
TG263 = {  # Mayo, IJROBP 100:1057 (2018)
    "Body": ["Body", "External"],
    "PTV": ["PTV"],
    "PTVBoost": ["PTV_High", "PTV_6700", "PTV_67Gy"],
    "PTVNodes": ["PTVn", "PTV_Low", "PTVn_5000", "PTV_5000"],
    "PTV70": ["PTV_High", "PTV_7000", "PTV_70Gy", "PTVp_7000"],
    "PTV63": ["PTV_Mid", "PTV_6300", "PTVn_6300"],
    "PTV56": ["PTV_Low", "PTV_5600", "PTVn_5600"],
    "Rectum": ["Rectum"],
    "Bladder": ["Bladder"],
    "FemoralHeadLeft": ["Femur_Head_L", "L_Head_Femur"],
    "FemoralHeadRight": ["Femur_Head_R", "R_Head_Femur"],
    "PenileBulb": ["PenileBulb", "Bulb_Penile"],
    "Bowel": ["Bowel", "Bag_Bowel", "Bowel_Bag", "Spc_Bowel", "Bowel_Small"],
    "SpinalCord": ["SpinalCord"],
    "Brainstem": ["Brainstem"],
    "RightParotid": ["Parotid_R", "R_Parotid"],
    "LeftParotid": ["Parotid_L", "L_Parotid"],
    "Larynx": ["Larynx"],
    "Esophagus": ["Esophagus"],
    "Mandible": ["Bone_Mandible", "Mandible_Bone"],
}


def roi(name: str, kind: str = "") -> Roi:
    return Roi(name, kind, [SQUARE])


def chosen(*rois: Roi, protocol: str = "prostate_60gy_20fx", names: RoiNames = NAMES) -> dict[str, tuple[str, str]]:
    """ROI and way by structure."""
    found = names.assign(rois, load_protocol(protocol).prescription_gy)
    return {structure: (match.name, match.how) for structure, match in found.items()}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_all_structures_of_all_protocols_have_their_tg263_names(protocol: str) -> None:
    wanted = ["Body", *load_protocol(protocol).prescription_gy, *load_protocol(protocol).structure_names]
    for number in range(max(len(names) for names in TG263.values())):
        names = {structure: TG263[structure][number % len(TG263[structure])] for structure in wanted}
        found = chosen(*(roi(name) for name in names.values()), protocol=protocol)
        assert {structure: name for structure, (name, _) in found.items()} == names
        assert {how for _, how in found.values()} == {"exact name"}


@pytest.mark.parametrize(
    ("name", "structure"),
    [
        ("PTV_6000", "PTV"),
        ("PTV60", "PTV"),
        ("ptv 60 gy", "PTV"),
        ("PTV-60", "PTV"),
        ("PTV-Prostate", "PTV"),
        ("BLADDER", "Bladder"),
        (" bladder ", "Bladder"),
        ("Vessie", "Bladder"),
        ("Mastdarm", "Rectum"),
        ("Tête fémorale G", "FemoralHeadLeft"),
        ("Cabeza femoral der.", "FemoralHeadRight"),
        ("Hüftkopf rechts", "FemoralHeadRight"),
        ("FEMUR HEAD RT", "FemoralHeadRight"),
        ("Moelle épinière", "SpinalCord"),
    ],
)
def test_names_in_other_cases_and_languages(name: str, structure: str) -> None:
    others = [] if structure == "PTV" else [roi("PTV", "PTV")]
    assert chosen(roi("BODY", "EXTERNAL"), roi(name, "ORGAN"), *others)[structure] == (name, "exact name")


def test_the_exact_name_goes_before_the_type_and_the_type_before_a_loose_name() -> None:
    exact, typed, loose = roi("PTV_60", ""), roi("Zielgebiet", "PTV"), roi("PTV Becken", "")
    assert chosen(exact, typed, loose)["PTV"] == ("PTV_60", "exact name")
    assert chosen(typed, loose)["PTV"] == ("Zielgebiet", "type PTV")
    assert chosen(loose)["PTV"] == ("PTV Becken", "loose name")
    outer, skin = roi("Outer contour 1", "EXTERNAL"), roi("Skin", "ORGAN")
    assert chosen(exact, skin, outer)["Body"] == ("Outer contour 1", "type EXTERNAL")
    assert chosen(exact, skin)["Body"] == ("Skin", "loose name")
    assert chosen(exact, roi("BODY"), skin)["Body"] == ("BODY", "exact name")
    assert "Body" not in chosen(exact)


STEERING = """
PTV_opt,PTVopt,zPTV,zPTV_High,z_PTV,zptv,ZPTV,xPTV,zRing,NS_Ring,NSRing,Ring 5mm,PTV ring,RingPTV,PTV-Rectum,PTV-3mm,
Rectum-PTV,PTV - Blase,PTV minus Rectum,PTV ohne Rektum,PTV60-PTV48,PTV-05,PTV-Urethra,PTV_Rectum,_PTV,PTV_Help,
Hilfs-PTV,PTV_eval,PTV_dose,PTV in Rectum,OptPTV,PTV\\Rectum,PTV_crop,Body-PTV,PTV shell
"""
STEERING_NAMES = STEERING.replace("\n", "").split(",")


@pytest.mark.parametrize("name", STEERING_NAMES)
@pytest.mark.parametrize("kind", ["", "ORGAN", "CONTROL"])
def test_optimization_structures_never_become_targets(name: str, kind: str) -> None:
    steering = roi(name, kind)
    with pytest.raises(ValueError, match="no ROI for PTV among") as error:
        chosen(roi("BODY"), steering)
    assert "--roi_names" in str(error.value) and "\n" not in str(error.value)
    assert chosen(steering, roi("Zielgebiet", "PTV"))["PTV"][0] == "Zielgebiet"
    assert chosen(steering, roi("PTV neu"))["PTV"][0] == "PTV neu"
    assert "Body" not in chosen(steering, roi("PTV"))


@pytest.mark.parametrize("name", [name for name in STEERING_NAMES if name != "PTV_Rectum"])
def test_not_even_with_the_type_of_a_target(name: str) -> None:
    with pytest.raises(ValueError, match=r"no ROI for PTV among .*may be for optimization"):
        chosen(roi("BODY"), roi(name, "PTV"))


@pytest.mark.parametrize("name", ["Zielvolumen", "ZIELVOLUMEN", "Zervix", "zervix", "Herring", "Xanthom", "Tumorbett"])
def test_ordinary_names_of_targets_are_none_of_them(name: str) -> None:
    assert chosen(roi("BODY"), roi(name, "PTV"))["PTV"] == (name, "type PTV")


@pytest.mark.parametrize(
    ("rois", "named"),
    [
        ([roi("PTV_High", "PTV"), roi("PTV_Low", "PTV")], "ROIs 'PTV_High', 'PTV_Low' all fit PTV"),
        ([roi("PTV A"), roi("PTV B")], "'PTV A', 'PTV B' all fit PTV"),
        ([roi("PTV"), roi("Outer 1", "EXTERNAL"), roi("Outer 2", "EXTERNAL")], "'Outer 1', 'Outer 2' all fit Body"),
        ([roi("PTV"), roi("Rectum"), roi("RECTUM")], "all fit Rectum"),
    ],
)
def test_several_that_fit_are_refused(rois: list[Roi], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        chosen(*rois)


def test_several_loose_names_for_what_no_protocol_names_are_left_out() -> None:
    assert "CTV" not in chosen(roi("PTV"), roi("CTV_High"), roi("CTV_Low"))


def test_of_several_targets_types_and_loose_names_find_the_last_one_only() -> None:
    boost = "prostate_boost_67gy_20fx"
    found = chosen(roi("PTV_67", "PTV"), roi("Zielgebiet", "PTV"), protocol=boost)
    assert (found["PTVBoost"][0], found["PTV"]) == ("PTV_67", ("Zielgebiet", "type PTV"))
    with pytest.raises(ValueError, match="no ROI for PTVBoost or PTV"):
        chosen(roi("Zielgebiet", "PTV"), protocol=boost)
    assert chosen(roi("PTV_High"), roi("PTV Prostata"), protocol=boost)["PTV"][0] == "PTV Prostata"


def test_a_roi_becomes_one_structure_only() -> None:
    found = chosen(roi("PTV_68"), roi("PTV_50"), protocol="prostate_nodes_68gy_25fx")
    assert {name: one for name, (one, _) in found.items()} == {"PTV": "PTV_68", "PTVNodes": "PTV_50"}


def test_structures_that_a_protocol_names_are_found_by_their_own_name() -> None:
    found = NAMES.assign([roi("PTV"), roi("urethra")], {"PTV": 60.0}, others=["Urethra", "Rectum"])
    assert found["Urethra"].name == "urethra"


def test_a_mapping_may_name_an_optimization_structure_and_types(tmp_path: Path) -> None:
    path = tmp_path / "names.yaml"
    content = {"body": ["<EXTERNAL>"], "targets": {"PTV": ["PTV-Rectum"]}, "structures": None, "support": None}
    path.write_text(yaml.safe_dump(content))
    names = load_roi_names(path)
    found = chosen(roi("PTV-Rectum"), roi("PTV"), roi("Body"), roi("Umriss", "EXTERNAL"), names=names)
    assert found == {"Body": ("Umriss", "type EXTERNAL"), "PTV": ("PTV-Rectum", "exact name")}
