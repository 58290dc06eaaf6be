"""The book's sources: pages are listed, modules documented, figures described, and nothing comes from the network."""

import re
import tomllib
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

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


def test_no_line_of_text_is_a_comment_by_chance():
    for path in PAGES:
        text = re.sub(r'^(`{3,}).*?^\1', '', path.read_text(), flags=re.M | re.S)
        assert not re.findall(r'^%.*', text, flags=re.M), f'{path.name}: a line that begins with % is not shown'


def test_terms_of_the_glossary_are_in_order():
    text = (ROOT / 'book' / 'glossary.md').read_text().split('## Terms')[1]
    terms = [term.lower() for term in re.findall(r'^(\S.*)\n  ', text, flags=re.M)]
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


def test_citations_of_project_and_paper_agree_everywhere():
    cited = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
    config = yaml.safe_load((ROOT / '_config.yml').read_text())
    address, licence = config['repository']['url'], project['license']['text']
    assert {'cff-version', 'message', 'title', 'authors'} <= set(cited)
    assert (cited['version'], cited['license'], cited['repository-code']) == (project['version'], licence, address)
    assert cited['authors'] == [{'name': config['author']}]
    entries = re.findall(r'^@\w+\{(\w+),\n(.*?)^\}', (ROOT / 'book' / 'references.bib').read_text(), flags=re.M | re.S)
    fields = {key: dict(re.findall(r'^  (\w+) = \{(.*)\},$', text, flags=re.M)) for key, text in entries}
    own, paper = fields['topdown2026'], fields['kim2024topdown']
    assert own['title'] == cited['title']
    assert own['author'] == '{' + config['author'] + '}'
    assert own['note'] == f'Version {project["version"]}'
    assert own['howpublished'] == f'\\url{{{address}}}'
    assert own['year'] == config['copyright']
    (reference,) = cited['references']
    names = [f'{author["family-names"]}, {author["given-names"]}' for author in reference['authors']]
    assert paper['author'] == ' and '.join(names)
    assert (paper['title'], paper['year']) == (reference['title'], str(reference['year']))
    assert (paper['booktitle'], paper['note']) == (reference['collection-title'], reference['identifiers'][0]['value'])


def test_the_box_on_citing_holds_the_paper_and_the_project_and_nothing_else():
    box = re.search(r'```\{literalinclude\} references.bib\n(.*?)```', (ROOT / 'book' / 'intro.md').read_text(), re.S)[
        1
    ]
    begin, end = (re.search(rf':{name}: (\S+)', box)[1] for name in ('start-at', 'end-before'))
    lines = (ROOT / 'book' / 'references.bib').read_text().split('\n')
    first, last = (next(i for i, line in enumerate(lines) if word in line) for word in (begin, end))
    assert re.findall(r'@\w+\{(\w+)', '\n'.join(lines[first:last])) == ['kim2024topdown', 'topdown2026']


def test_the_favicon_is_the_logo_made_small():
    config = yaml.safe_load((ROOT / '_config.yml').read_text())
    icon, logo = ROOT / config['html']['favicon'], Image.open(ROOT / config['logo'])
    assert icon.stat().st_size < 5000
    found = np.asarray(Image.open(icon).convert('RGB'), float)
    assert found.shape == (48, 48, 3)
    assert np.abs(found - np.asarray(logo.convert('RGB').resize((48, 48), Image.Resampling.LANCZOS), float)).mean() < 5
