"""After the book's build: every chapter has a page with text, and no link leads to a missing file."""

import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
HTML = ROOT / '_build' / 'html'


def main() -> int:
    contents = yaml.safe_load((ROOT / '_toc.yml').read_text())
    files = [contents['root'], *(chapter['file'] for chapter in contents['chapters'])]
    problems = []
    for name in files:
        page = HTML / f'{name}.html'
        if not page.is_file():
            problems.append(f'{name}: no page was built')
            continue
        text = page.read_text()
        if len(re.sub(r'<[^>]+>', '', text)) < 2000:
            problems.append(f'{name}: the page is almost empty')
        for target in re.findall(r'(?:src|href)="([^"#?]+)', text):
            if not re.match(r'[a-z]+:|//', target) and not (page.parent / target).exists():
                problems.append(f'{name}: links to {target}, which is missing')
    print('\n'.join(problems) or f'book: {len(files)} pages built')
    return bool(problems)


if __name__ == '__main__':
    sys.exit(main())
