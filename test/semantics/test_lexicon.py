"""The household words: the file is sound, and a phrase finds the word that a user means."""

import pytest

from gsemsplat_ros.semantics.lexicon import (
    IRREGULAR,
    MEASURES,
    PREPOSITIONS,
    Lexicon,
    coco_names,
    imagenet_names,
)

LEXICON = Lexicon.load()
# word, ImageNet classes, the nearly meant ones, and the same of COCO
TABLE = """
sofa          | studio couch                 |                                  | couch          |
office chair  |                              | barber chair, folding chair      |                | chair
chair         | folding chair, rocking chair, barber chair, throne |            | chair          |
monitor       | monitor, screen              | desktop computer                 | tv             |
television    | television                   | home theater, entertainment center | tv           |
potted plant  | pot                          |                                  | potted plant   |
door          | sliding door                 |                                  |                |
stairs        |                              | bannister                        |                |
railing       | bannister                    |                                  |                |
radiator      | radiator                     |                                  |                |
floor         |                              |                                  |                |
refrigerator  | refrigerator                 |                                  | refrigerator   |
washing machine | washer                     |                                  |                |
bathtub       | bathtub, tub                 |                                  |                |
sink          | washbasin                    |                                  | sink           |
lamp          | table lamp, lampshade, spotlight |                              |                |
bin           | ashcan                       |                                  |                |
toy car       |                              | sports car, convertible, racer, Model T |         | car, truck
mouse         | mouse                        |                                  | mouse          |
keyboard      | computer keyboard            | typewriter keyboard, space bar   | keyboard       |
piano keyboard |                             | upright, grand piano             |                |
screen        | monitor, screen              | desktop computer                 | tv             |
iron          | iron                         |                                  |                |
nail          | nail                         |                                  |                |
bat           |                              |                                  | baseball bat   |
tank          |                              |                                  |                |
torch         |                              |                                  |                |
crane         | crane                        |                                  |                |
plane         | airliner, warplane           | wing                             | airplane       |
kite          |                              |                                  | kite           |
cardigan      | sweatshirt, cardigan, jersey |                                  |                |
walking stick |                              | crutch                           |                |
hot dog       | hotdog                       |                                  | hot dog        |
cup           | cup, coffee mug, measuring cup |                                | cup            |
"""


@pytest.mark.parametrize('row', TABLE.strip().splitlines(), ids=lambda row: row.partition('|')[0].strip())
def test_table(row):
    word, *columns = [column.strip() for column in row.split('|')]
    entry = LEXICON.find(word)
    assert entry is not None
    imagenet, coco = imagenet_names(), coco_names()
    assert columns == [
        ', '.join(names[i] for i in indices)
        for names, indices in (
            (imagenet, entry.imagenet),
            (imagenet, entry.imagenet_near),
            (coco, entry.coco),
            (coco, entry.coco_near),
        )
    ]


@pytest.mark.parametrize(
    'phrase, word',
    [
        ('a big red sofa', 'sofa'),
        ('The Couch.', 'sofa'),
        ('wooden office chair', 'office chair'),
        ('cup of tea', 'cup'),
        ('a cup with a blue handle', 'cup'),
        ('the man with a red bag', 'person'),
        ('the door of the fridge', 'door'),
        ('chest of drawers', 'chest of drawers'),
        ('an old chest of drawers with a lamp on it', 'chest of drawers'),
        ('chests of drawers', 'chest of drawers'),
        ('pair of scissors', 'scissors'),
        ('two pairs of old running shoes', 'trainer'),
        ('pile of books', 'book'),
        ('shelves', 'shelf'),
        ('kitchen knives', 'knife'),
        ('people', 'person'),
        ('two women', 'person'),
        ('computer mice', 'mouse'),
        ('boxes', 'box'),
        ('batteries', 'battery'),
        ('wine glasses', 'wine glass'),
        ('glasses', 'glasses'),
        ('built-in wardrobe', 'wardrobe'),
        ('T-shirts', 't-shirt'),
        ('t shirt', 't-shirt'),
        ('salt and pepper shaker', 'salt shaker'),
        ('doll’s house', "doll's house"),
        ('clothes horse', 'drying rack'),
        ('guinea pigs', 'guinea pig'),
        ('a stuffed dog', 'teddy bear'),
        ('shelf with books and toys', 'shelf'),
        ('toy box', 'box'),
        ('red toy cars', 'toy car'),
        ('clothes iron', 'iron'),
    ],
)
def test_find(phrase, word):
    entry = LEXICON.find(phrase)
    assert entry is not None and entry.word == word


@pytest.mark.parametrize(
    'phrase',
    [
        '',
        '!?',
        'the',
        'of',
        'pair of',
        'on the table',
        'table and chairs',
        'cup or mug on a table',
        'toy giraffe on wheels',
        'toy dinosaur',
        'zebra',
    ],
)
def test_no_household_word(phrase):
    assert LEXICON.find(phrase) is None


def test_every_name_finds_its_entry():
    assert len(LEXICON.entries) >= 150
    for entry in LEXICON.entries:
        for name in (entry.word, *entry.synonyms):
            assert LEXICON.find(name) is entry, name
    assert all(LEXICON.find(word) is None for word in MEASURES | PREPOSITIONS)
    assert all(LEXICON.find(plural) is LEXICON.find(singular) for plural, singular in IRREGULAR.items())


def test_names_of_the_lists():
    assert len(imagenet_names()) == len(set(imagenet_names())) == 1000
    assert len(coco_names()) == len(set(coco_names())) == 80
    assert (coco_names()[0], coco_names()[56], coco_names()[79]) == ('person', 'chair', 'toothbrush')
    # a thing of COCO's that stands in a home is a household word, unless it is of a zoo
    unknown = {name for name in coco_names() if LEXICON.find(name) is None}
    assert unknown <= {'zebra', 'giraffe'}


def test_ranges_and_marks():
    names = imagenet_names()
    entry = Lexicon.parse(
        '# pets\ncat, kitten = tabby .. Egyptian cat, ~lynx | cat  # not the wild ones\n'
    ).find('kitten')
    assert entry is not None and entry.synonyms == ('kitten',)
    assert [names[i] for i in entry.imagenet] == [
        'tabby',
        'tiger cat',
        'Persian cat',
        'Siamese cat',
        'Egyptian cat',
    ]
    assert [names[i] for i in entry.imagenet_near] == ['lynx']
    assert (entry.coco, entry.coco_near) == ((15,), ())


@pytest.mark.parametrize(
    'text, reason',
    [
        ('sofa, couch', "line 1: got 'sofa, couch', wanted"),
        ('\nsofa = studio couch', 'line 2: got'),
        ('sofa = Studio couch | couch', "no class is called 'Studio couch'; wanted one of 1000"),
        ('sofa = studio couch | settee', "no class is called 'settee'; wanted one of 80"),
        ('sofa = |\ncouch, Sofa = |', "line 2: 'Sofa' already means something else"),
        ('dog = Mexican hairless .. Chihuahua | dog', "'Chihuahua' comes before 'Mexican hairless'"),
        ('dog = pug, Chihuahua .. Mexican hairless | dog', 'a class twice'),
    ],
)
def test_refused(text, reason):
    with pytest.raises(ValueError, match='household word') as error:
        Lexicon.parse(text)
    assert reason in str(error.value) and '\n' not in str(error.value)
