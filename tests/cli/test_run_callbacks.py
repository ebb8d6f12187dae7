"""Callbacks on their own: checkpoints are whole or absent, films show what they are given."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from full_disk import full_disk

from lightning_vmat.callbacks.checkpoint import WholeCheckpointIO
from lightning_vmat.callbacks.figures import FluenceFilm, fluence_film


def test_a_failed_write_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    WholeCheckpointIO().save_checkpoint({"epoch": 1}, path)
    with pytest.raises(AttributeError):
        WholeCheckpointIO().save_checkpoint({"epoch": 2, "broken": lambda: None}, path)
    assert torch.load(path, weights_only=True)["epoch"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_full_disk_names_the_checkpoint_and_leaves_the_last_one(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    WholeCheckpointIO().save_checkpoint({"epoch": 1}, path)
    with full_disk(beyond_bytes=100_000), pytest.raises(OSError, match=r"last\.ckpt"):
        WholeCheckpointIO().save_checkpoint({"epoch": 2, "weights": torch.zeros(100_000)}, path)
    assert torch.load(path, weights_only=True)["epoch"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize(("control_points", "frames"), [(1, 1), (5, 5), (30, 12)])
def test_film_spreads_frames_over_the_arc(control_points: int, frames: int) -> None:
    maps = torch.rand(control_points, 4, 6)
    figure = fluence_film({"generated": maps, "reference": 2 * maps})
    assert len(figure.axes) == 2 * frames
    titles = [int(axes.get_title()) for axes in figure.axes[:frames]]
    assert titles[0] == 0 and titles[-1] == control_points - 1
    limits = {axes.images[0].get_clim() for axes in figure.axes}
    assert len(limits) == 1  # one grey scale


def test_film_of_dark_maps_is_drawn() -> None:
    fluence_film({"generated": torch.zeros(3, 2, 2)}).canvas.draw()


def test_film_needs_maps_and_epochs() -> None:
    with pytest.raises(ValueError, match="at least one set"):
        fluence_film({})
    with pytest.raises(ValueError, match="expected at least 1"):
        FluenceFilm(every_n_epochs=0)
