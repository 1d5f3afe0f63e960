"""Render pages from templates; every inserted value is escaped."""

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape


def page_environment() -> Environment:
    """Return the environment of this package's templates, which escapes values and refuses unknown names."""
    return Environment(
        loader=PackageLoader("voxloss.report.page"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
