"""What became of a data set's records: one report, filled while they are read, told in one line or in full."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

REFUSED, LEFT_OUT, DOUBTFUL, NOTE = 'refused', 'left out', 'doubtful', 'note'
"""What cannot be used, and stops all but a check; what is not scored; what is scored, but looks wrong; what to know."""
SHOWN, LISTED = 5, 20
"""Examples of one reason in a line, and in full."""


@dataclass
class Report:
    """Counts of a split, and every record that is not simply used, by reason. Saying a thing twice counts once."""

    title: str
    images: int = 0
    objects: int = 0
    entries: dict[tuple[str, str], dict[str, None]] = field(default_factory=dict)  # (kind, reason) -> where

    def add(self, kind: str, reason: str, where: str = '') -> None:
        """Enter one record: ``kind`` as above, ``where`` names it."""
        self.entries.setdefault((kind, reason), {})[where] = None

    def lines(self, *kinds: str) -> list[str]:
        """Every entry of these kinds by itself, as 'where: reason'."""
        found = [
            (reason, where) for (kind, reason), places in self.entries.items() if kind in kinds for where in places
        ]
        return [f'{where}: {reason}' if where else reason for reason, where in found]

    @property
    def problems(self) -> list[str]:
        """All that is not as it should be."""
        return self.lines(REFUSED, LEFT_OUT, DOUBTFUL)

    def __str__(self) -> str:
        """In full: one line per record, but for the many of one reason."""
        count = len(self.problems)
        head = f'{self.title}: {self.images} images, {self.objects} objects, '
        lines = [head + (f'{count} problem(s)' if count else 'no problems')]
        for (kind, reason), places in self.entries.items():
            word = {LEFT_OUT: 'problem, left out', NOTE: 'note'}.get(kind, 'problem')
            shown = list(places)[:LISTED]
            lines += [f'  {word}: {where}: {reason}' if where else f'  {word}: {reason}' for where in shown]
            if len(places) > LISTED:
                lines.append(f'  {word}: {len(places) - LISTED} more: {reason}')
        return '\n'.join(lines)

    def line(self) -> str:
        """In one line: counts, and of every reason the number and the first examples."""
        return '; '.join([f'{self.title}: {self.images} images, {self.objects} objects', *self._reasons()])

    def warn(self) -> None:
        """Warn once of everything that was left out or looks wrong."""
        found = self._reasons(LEFT_OUT, DOUBTFUL)
        if found:
            warnings.warn(f'{self.title}: {"; ".join(found)}', stacklevel=3)

    def stop(self) -> None:
        """Raise one ValueError if a record was refused: the first, and how many there are."""
        found = self.lines(REFUSED)
        if found:
            more = f' (and {len(found) - 1} more: topdown data check names all)' if len(found) > 1 else ''
            raise ValueError(f'{self.title}: {found[0]}{more}')

    def _reasons(self, *kinds: str) -> list[str]:
        told = []
        for (kind, reason), places in self.entries.items():
            if kinds and kind not in kinds:
                continue
            named = [where for where in places if where]
            shown = f' ({", ".join(named[:SHOWN])}{", ..." if len(named) > SHOWN else ""})' if named else ''
            many = f'{len(places)} {"kept" if kind in (DOUBTFUL, NOTE) else kind}: ' if named else ''
            told.append(f'{many}{reason}{shown}')
        return told
