"""How pages are made from templates: everything that is put into one is escaped."""

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape


def page_environment() -> Environment:
    """The templates of this package, escaping, and refusing names that nobody gave."""
    return Environment(
        loader=PackageLoader("voxloss.report.page"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
