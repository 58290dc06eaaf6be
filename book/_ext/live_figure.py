"""Sphinx: the page that holds the live figure, and no other, loads its script, its data and its style."""

MARK = 'id="live-modulation"'


def add_files(app, pagename, templatename, context, doctree) -> None:
    """Called by Sphinx before a page is written."""
    if MARK in context.get('body', ''):
        app.add_css_file('live/live.css')
        for name in ('live/data.js', 'live/live.js'):
            app.add_js_file(name, loading_method='defer')


def setup(app) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect('html-page-context', add_files)
    return {'parallel_read_safe': True}
