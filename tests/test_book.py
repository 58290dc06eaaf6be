"""The book's sources: pages are listed, modules documented, figures described, and nothing comes from the network."""

import re
from pathlib import Path

import yaml

from tests.check_book import listed, written

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / 'book').glob('*.md'))


def test_every_page_is_in_the_contents():
    contents = yaml.safe_load((ROOT / '_toc.yml').read_text())
    pages = [contents['root'], *listed(contents)]
    assert len(pages) == len(set(pages))
    assert sorted(pages) == written()


def test_every_module_is_in_the_reference_once():
    text = ''.join(path.read_text() for path in ROOT.glob('book/api*.md'))
    documented = re.findall(r'^\.\. automodule:: (\S+)', text, flags=re.M)
    package = ROOT / 'topdown'
    modules = [p.relative_to(ROOT).with_suffix('') for p in package.rglob('*.py') if p.name != '__main__.py']
    names = sorted('.'.join(part for part in path.parts if part != '__init__') for path in modules)
    assert sorted(documented) == names


def test_figures_have_words_for_those_who_cannot_see_them():
    text = '\n'.join(path.read_text() for path in PAGES)
    figures = re.findall(r'^```\{(?:figure|image)\}.*?^```', text, flags=re.M | re.S)
    assert len(figures) == text.count('{figure}') + text.count('{image}') > 0
    for figure in figures:
        alt = re.search(r':alt: (.+)', figure)
        assert alt, figure
        assert len(alt[1]) > 20


def test_terms_of_the_glossary_are_in_order():
    text = (ROOT / 'book' / 'glossary.md').read_text().split('## Terms')[1]
    terms = [term.lower() for term in re.findall(r'^(\S.*)\n: ', text, flags=re.M)]
    assert len(terms) > 30
    assert terms == sorted(terms)


def test_mathematics_needs_no_network():
    config = yaml.safe_load((ROOT / '_config.yml').read_text())
    sphinx = config['sphinx']['config']
    (static,) = sphinx['html_static_path']
    assert (ROOT / static / sphinx['mathjax_path']).is_file()
    assert (ROOT / static / 'mathjax' / 'LICENSE').is_file()


def test_citations_are_in_the_bibliography():
    known = set(re.findall(r'^@\w+\{(\w+),', (ROOT / 'book' / 'references.bib').read_text(), flags=re.M))
    texts = [path.read_text() for path in [*PAGES, *(ROOT / 'book').glob('*.py')]]
    cited = {
        key for text in texts for keys in re.findall(r'\{cite\}`([^`]+)`', text) for key in re.split(r',\s*', keys)
    }
    assert 'kim2024topdown' in cited <= known


def test_readme_names_every_folder_of_the_package_and_no_other():
    named = set(re.findall(r'^\| `(topdown/[\w/]*)` \|', (ROOT / 'README.md').read_text(), flags=re.M))
    there = {f'{path.parent.relative_to(ROOT)}/' for path in (ROOT / 'topdown').rglob('__init__.py')}
    assert named == there


def test_readme_names_the_versions_of_the_constraints():
    pinned = dict(re.findall(r'^(\S+)==(\S+)$', (ROOT / 'constraints.txt').read_text(), flags=re.M))
    (said,) = re.findall(r'versions in `constraints.txt` \((.*?)\)', (ROOT / 'README.md').read_text(), flags=re.S)
    named = dict(part.split() for part in said.split(','))
    assert set(named) == {'numpy', 'pandas', 'torch'}
    assert all(pinned[name] == version for name, version in named.items())


def test_the_lock_has_the_versions_of_the_constraints_and_hashes_of_all():
    text = (ROOT / 'requirements.lock').read_text()
    normal = lambda name: re.sub('[-_.]+', '-', name).lower()  # noqa: E731
    entries = re.findall(r'^(\S+?)==(\S+)(.*(?:\n    --hash=sha256:[0-9a-f]{64}.*)+)', text, flags=re.M)
    assert len(entries) == len(re.findall('==', re.sub(' ;.*', '', text)))
    locked = {}
    for name, version, _ in entries:
        locked.setdefault(name, set()).add(version)
    for name, version in re.findall(r'^(\S+)==(\S+)$', (ROOT / 'constraints.txt').read_text(), flags=re.M):
        assert locked[normal(name)] == {version}, name
    project = (ROOT / 'pyproject.toml').read_text()
    wanted = re.findall(r'^    "([\w-]+)[>=<]', project, flags=re.M)
    assert {normal(name) for name in wanted} - {'tensorboard', 'pip-audit', 'uv'} <= set(locked)
    assert not re.search(r'://|^-', text, flags=re.M)  # no address of anybody's index
