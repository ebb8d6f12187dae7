"""The number of condition channels follows from the data: networks of a configuration are given it here."""

from __future__ import annotations

from collections.abc import Iterator

from jsonargparse import Namespace

from lightning_vmat.networks.bev_conditioning import channel_names

KEY = "condition_channels"


def fill_condition_channels(config: Namespace) -> None:
    """Write the number of condition channels into every network of a parsed configuration that has such an argument.

    Args:
        config: with `data` and `model`; changed in place.

    Raises:
        ValueError: a network is given another number than the data bring.
    """
    structures, wishes = config["data"]["structures"], bool(config["data"]["wishes"])
    number = len(channel_names(structures, wishes))
    for place, settings in networks(config["model"], "model"):
        given = settings[KEY]
        if given not in (None, number):
            raise ValueError(
                f"{place}.{KEY} is {given}, expected {number} for the {len(structures)} data.structures and "
                f"data.wishes {str(wishes).lower()}; leave it out to have it derived"
            )
        settings[KEY] = number


def networks(settings: Namespace, place: str) -> Iterator[tuple[str, Namespace]]:
    """The arguments of every class below `settings` that takes condition channels, each after its key."""
    for name, value in list(vars(settings).items()):
        if isinstance(value, Namespace):
            if name == "init_args" and KEY in value:
                yield f"{place}.{name}", value
            yield from networks(value, f"{place}.{name}")
