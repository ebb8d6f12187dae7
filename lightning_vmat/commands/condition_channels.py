"""The number of condition channels, and whether arcs are among them, follow from the data; networks are told here."""

from __future__ import annotations

from collections.abc import Iterator

from jsonargparse import Namespace

from lightning_vmat.networks.bev_conditioning import ChannelSettings
from lightning_vmat.recipes.runs import yaml_text

KEY, ARCS = "condition_channels", "arcs"


def fill_condition_channels(config: Namespace) -> None:
    """Write the number of condition channels, and whether arcs are among them, into every network of a configuration
    that has such arguments.

    Args:
        config: parsed configuration with `data` and `model`; changed in place.

    Raises:
        ValueError: a network is given another number than the data bring, or arcs where they bring none.
    """
    channels = ChannelSettings.of(vars(config["data"]))
    number, wishes, arcs = len(channels.names), yaml_text(channels.wishes), channels.arcs
    for place, settings in networks(config["model"], "model"):
        given = settings[KEY]
        if given not in (None, number):
            raise ValueError(
                f"{place}.{KEY} is {given}, expected {number} for the {len(channels.structures)} data.structures, "
                f"data.wishes {wishes}, data.arcs {yaml_text(arcs)} and data.fluence_evaluations "
                f"{channels.fluence_evaluations}; leave it out to have it derived"
            )
        settings[KEY] = number
        if ARCS in settings:
            if settings[ARCS] and not arcs:
                raise ValueError(
                    f"{place}.{ARCS} is true, expected false as data.arcs is; leave it out to have it derived"
                )
            settings[ARCS] = arcs


def networks(settings: Namespace, place: str) -> Iterator[tuple[str, Namespace]]:
    """The arguments of every class below `settings` that takes condition channels, each after its key."""
    for name, value in list(vars(settings).items()):
        if isinstance(value, Namespace):
            if name == "init_args" and KEY in value:
                yield f"{place}.{name}", value
            yield from networks(value, f"{place}.{name}")
