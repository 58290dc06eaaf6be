"""After the book's build: every chapter has a page with text, needs no network, and no link leads to a missing file."""

import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent


def listed(node: dict | list) -> list[str]:
    """Every file below a node of the contents."""
    if isinstance(node, list):
        return [name for item in node for name in listed(item)]
    own = [node['file']] if 'file' in node else []
    return own + [name for key in ('parts', 'chapters', 'sections') for name in listed(node.get(key, []))]


def written() -> list[str]:
    """Every page that there is a source of."""
    pages = [*ROOT.glob('book/*.md'), *ROOT.glob('book/[0-9]*.ipynb'), ROOT / 'genindex.md']
    return sorted(str(page.relative_to(ROOT).with_suffix('')) for page in pages)


def main() -> int:
    html = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / '_build' / 'html'
    contents = yaml.safe_load((ROOT / '_toc.yml').read_text())
    files = [contents['root'], *listed(contents)]
    problems = [f'{name}: is not in _toc.yml' for name in written() if name not in files]
    for name in files:
        page = html / f'{name}.html'
        if not page.is_file():
            problems.append(f'{name}: no page was built')
            continue
        text = page.read_text()
        if re.search(r'<(?:script|link|img)[^>]+(?:src|href)="https?:', text):
            problems.append(f'{name}: loads something from the network')
        if len(re.sub(r'<[^>]+>', '', text)) < 2000:
            problems.append(f'{name}: the page is almost empty')
        for alt in re.findall(r'<img[^>]+alt="([^"]*)"', text):
            if len(alt) < 10 or '/' in alt.split()[0]:
                problems.append(f'{name}: a figure has no alternative text, but {alt!r}')
        for target in re.findall(r'(?:src|href)="([^"#?]+)', text):
            if not re.match(r'[a-z]+:|//', target) and not (page.parent / target).exists():
                problems.append(f'{name}: links to {target}, which is missing')
    print('\n'.join(problems) or f'book: {len(files)} pages built')
    return bool(problems)


if __name__ == '__main__':
    sys.exit(main())
