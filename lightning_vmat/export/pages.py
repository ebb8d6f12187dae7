"""The template environment of the HTML pages."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def page_environment() -> Environment:
    """Environment for the templates of this folder: values are escaped, and missing ones are an error."""
    return Environment(
        loader=PackageLoader("lightning_vmat.export", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
