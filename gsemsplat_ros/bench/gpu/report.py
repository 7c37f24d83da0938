"""The tables of a run on a GPU, as docs/measurements.md takes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

WIDEST = 300  # characters of a cell


def report(outcomes: Sequence[dict[str, Any]]) -> str:
    """Markdown of the outcomes of `run_parts`: what became of each part, then the results one by one."""
    asked = [outcome['result'] for outcome in outcomes if outcome['part'] == 'machine']
    machine = asked[0] if asked else {}
    lines = [f'## {machine.get("device", "A GPU")}, {machine.get("date", "without a date")}', '']
    lines += table(
        ('part', 'what', 'outcome', 'seconds'),
        [
            (
                outcome['part'],
                outcome['what'],
                ': '.join(filter(None, (outcome['state'], outcome['reason']))),
                outcome.get('seconds'),
            )
            for outcome in outcomes
        ],
    )
    for outcome in outcomes:
        if outcome['result']:
            lines += ['', f'### {outcome["part"]}', *tables(outcome['result'])]
    return '\n'.join(lines) + '\n'


def tables(result: dict[str, Any]) -> list[str]:
    """The values of a result in one table; then each of its dictionaries of rows in one of its own."""
    values = [(name, value) for name, value in result.items() if not isinstance(value, dict)]
    lines = ['', *table(('', 'value'), values)] if values else []
    for name, rows in result.items():
        if isinstance(rows, dict) and rows:
            columns = list(dict.fromkeys(column for row in rows.values() for column in row))
            body = [(key, *(row.get(column) for column in columns)) for key, row in rows.items()]
            lines += ['', *table((name, *columns), body)]
    return lines


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a Markdown table."""

    def cell(value: object) -> str:
        text = f'{value:.4g}' if isinstance(value, float) else '' if value is None else str(value)
        return ' '.join(text.replace('|', '/').split())[:WIDEST]

    return [f'| {" | ".join(map(cell, row))} |' for row in (header, ['---'] * len(header), *rows)]
