"""What a page says against the rows that it says it of."""

from pathlib import Path

BOOK = Path(__file__).parent.parent / 'book'
WORDS = ('none', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten')
"""Numbers as pages write them."""


def check_quotes(page: str, facts: dict[str, bool]) -> None:
    """Every sentence stands in a file of the book just when its fact holds: no finding is fixed in a test."""
    text = (BOOK / page).read_text().replace('\n# ', '\n')
    text = ' '.join(text.split())
    for sentence, fact in facts.items():
        assert (sentence in text) == bool(fact), f'{page}: {sentence}'
