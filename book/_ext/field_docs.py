"""Sphinx: docstrings below fields are prose. Napoleon would read what stands before their first colon as a type."""

from sphinx.ext.napoleon.docstring import GoogleDocstring


def setup(app) -> dict[str, bool]:
    """Called by Sphinx."""
    GoogleDocstring._parse_attribute_docstring = lambda self: list(
        self._consume_to_end()
    )
    return {'parallel_read_safe': True}
