"""Sphinx: scripts of pages. The live figure's load where the figure is, and no script of the theme runs twice."""

LIVE = 'id="live-modulation"'


def add_live(app, pagename, templatename, context, doctree) -> None:
    """Give the page that holds the live figure, and no other, its style, its data and its script."""
    if LIVE in context.get('body', ''):
        app.add_css_file('live/live.css')
        for name in ('live/data.js', 'live/live.js'):
            app.add_js_file(name, loading_method='defer')


def drop_repeated(app, pagename, templatename, context, doctree) -> None:
    """Keep the first of equal inline scripts: one that declares constants twice is an error in the console."""
    kept, bodies = [], set()
    for script in context['script_files']:
        body = script.attributes.get('body')
        if body is None or body not in bodies:
            kept.append(script)
        bodies.add(body)
    context['script_files'][:] = kept


def setup(app) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect('html-page-context', add_live)
    app.connect('html-page-context', drop_repeated)
    return {'parallel_read_safe': True}
