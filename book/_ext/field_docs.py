"""Sphinx: what napoleon would take for something else in a docstring.

Docstrings below fields are prose: it would read what stands before their first colon as a type. A parameter that is
described by a letter ('D.') is not an item of a list.
"""

from sphinx.ext.napoleon.docstring import GoogleDocstring


def setup(app) -> dict[str, bool]:
    """Called by Sphinx."""
    GoogleDocstring._parse_attribute_docstring = lambda self: list(
        self._consume_to_end()
    )
    fix = GoogleDocstring._fix_field_desc
    GoogleDocstring._fix_field_desc = lambda self, text: fix(
        self, ['\\' + text[0]] if [len(line) for line in text] == [2] else text
    )
    return {'parallel_read_safe': True}
