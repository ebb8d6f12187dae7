"""How HTML pages are made from the templates of this folder."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def page_environment() -> Environment:
    """Values are escaped, and one that is missing is an error."""
    return Environment(
        loader=PackageLoader("lightning_vmat.export", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
