"""README, docs and the references to them hold what they promise."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CODE = [
    p for folder in ('gsemsplat_ros', 'test', 'launch', 'msg') for p in sorted((ROOT / folder).rglob('*.py'))
]


def test_every_reference_to_a_published_fact_exists():
    facts = re.findall(r'^(\d+)\. \*', (ROOT / 'docs/published.md').read_text(), re.M)
    assert facts == [str(i + 1) for i in range(len(facts))], 'numbered without a gap'
    referred = 0
    for path in CODE:
        for numbers in re.findall(r'docs/published\.md\s+(\d+(?:(?:-|, )\d+)*)', path.read_text()):
            missing = set(re.findall(r'\d+', numbers)) - set(facts)
            assert not missing, f'{path.relative_to(ROOT)} refers to docs/published.md {sorted(missing)}'
            referred += 1
    assert referred > 25


def test_nothing_refers_to_texts_that_are_not_here():
    for path in CODE:
        if path != Path(__file__):
            found = re.search(r'architecture note|[( ]notes \d|pitfall \d', path.read_text(), re.I)
            assert found is None, f'{path.relative_to(ROOT)}: {found[0]!r}: docs/published.md has the facts'
