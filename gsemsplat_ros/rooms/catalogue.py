"""The furniture catalogues: indoor entries, their names in plain words, and their authors."""

from __future__ import annotations

import hashlib
import re
import unicodedata
import zipfile

HELDOUT_NAMES = 0.05  # share of the names that training never uses
# share of the other meshes that training never sees, if another mesh teaches it the noun
HELDOUT_MESHES = 0.2
SOURCES = {  # library -> (authors, licence, link of the licence)
    'BlendSwap-CC-0': (
        'Blend Swap contributors and Emmanuel Puybaret / eTeks',
        'CC0-1.0',
        'https://creativecommons.org/publicdomain/zero/1.0/',
    ),
    'BlendSwap-CC-BY': (
        'Blend Swap contributors',
        'CC-BY-3.0',
        'https://creativecommons.org/licenses/by/3.0/',
    ),
    'KatorLegaz': (
        'Andrew Kator and Jennifer Legaz',
        'CC-BY-3.0-US',
        'https://creativecommons.org/licenses/by/3.0/us/',
    ),
    'Reallusion': ('Reallusion', 'CC-BY-3.0-US', 'https://creativecommons.org/licenses/by/3.0/us/'),
    'Scopia': (
        'Scopia Visual Interfaces Systems, s.l.',
        'CC-BY-3.0',
        'https://creativecommons.org/licenses/by/3.0/',
    ),
}
INDOOR = {'Office', 'Bedroom', 'Living room', 'Kitchen', 'Bathroom', 'Lights', 'Miscellaneous'}
ALSO = {
    'cafe chair',
    'cafe table',
    'folding chair',
    'relax chair',
    'rattan armchair',
    'rattan sofa',
    'rattan table',
    'ficus',
    'bamboo',
    'cat',
    'siamese cat',
    'dog',
    'bulldog',
    'rabbit',
    'bicycle',
    'bike',
    'stroller',
    'tricycle',
    'skateboard',
    'teck chair',
    'bench',
    'spray bottle',
    'plant box',
    'flower box',
    'deck chair',
    'chair',
    'scooter',
    'doormat',
}
NEVER = re.compile(
    r'plug|switch|socket|bill|hashtag|cone|lamppost|street|park light|outdoor|porch|shipping|fence|railing|'
    r'pallet|mower|mannequin|shower door|shower curtain|contemporary living|track lights|emergency|tatami|'
    r'smoke|lantern|biplane|thermometer|dining set|\bring\b|deer|^gift$|'
    r'shower head|curtain|window|wheelbarrow'
)
ALIAS = {
    'apple iphone': 'mobile phone',
    'apple ibook': 'laptop',
    'apple imac': 'desktop computer',
    'puff': 'pouf',
    'flipper': 'pinball machine',
    'hashtray': 'ashtray',
    'trunck': 'trunk',
    'hood': 'range hood',
    'clear sofa': 'sofa',
    'tv': 'television',
    'wall flat tv': 'flat television',
    'bath': 'bathtub',
    'sofa seats': 'sofa',
    'class seat': 'school chair',
    'frame chambord': 'picture frame',
    'frame hoi an': 'picture frame',
    'mocassin': 'moccasin',
    'bootie': 'boot',
    'toilets unit': 'toilet',
    'island': 'kitchen island',
    'island extension': 'kitchen island',
    'cup cake': 'cupcake',
    'desk table': 'desk',
    'technical table': 'drawing table',
    'little plant': 'plant',
    'little lamp': 'lamp',
    'rigged fan': 'fan',
    'table fan': 'fan',
    'kitchen tools': 'kitchen utensils',
    'tool': 'kitchen utensil',
    'couch': 'couch',
    'teck chair': 'teak chair',
    'short': 'shorts',
    'gaz water heater': 'water heater',
    'electric water heater': 'water heater',
    'convertible sofa bz': 'sofa bed',
    'opened convertible sofa bz': 'sofa bed',
    'induction cooker zones': 'induction cooker',
    'extinguisher': 'fire extinguisher',
    'led tv': 'television',
    'air conditioning internal unit': 'air conditioner',
    'indoor bike': 'exercise bike',
    'flacon': 'perfume bottle',
    'clothes washing machine': 'washing machine',
    'dryer machine': 'dryer',
    'football table': 'table football',
    'woman shoes': 'shoes',
    'tv stand': 'television stand',
    'screen': 'computer screen',
    'pool table': 'billiard table',
}


def clean_name(name: str) -> str:
    """'Modern chair 2' -> 'modern chair': lower-case ASCII words without numbers."""
    text = unicodedata.normalize('NFKD', name).encode('ascii', 'ignore').decode().lower()
    words = [w for w in re.split(r"[^a-z']+", text) if len(w) > 1]
    text = ' '.join(words)
    return ALIAS.get(text, text)


def base_noun(name: str) -> str:
    """'chair with cushion' -> 'chair', 'oak table' -> 'table'."""
    return re.split(r' (?:with|on|of|and) ', name)[0].split()[-1]


def drawn(text: str, share: float) -> bool:
    """Whether `text` belongs to the `share` of all texts that is held out. Deterministic."""
    return int(hashlib.sha1(f'gsemsplat {text}'.encode()).hexdigest(), 16) % 1000 < 1000 * share


def read_catalogue(archive: zipfile.ZipFile) -> list[dict[str, str]]:
    """The entries of one `.sh3f` file, key -> value; lengths in cm."""
    text = archive.read('PluginFurnitureCatalog.properties').decode('latin-1')
    entries: dict[str, dict[str, str]] = {}
    for key, number, value in re.findall(r'^(\w+)#(\d+)=(.*)$', text, re.M):
        value = re.sub(r'\\u([0-9a-fA-F]{4})', lambda m: chr(int(m[1], 16)), value.strip())
        entries.setdefault(number, {})[key] = value
    return list(entries.values())


def wanted(entry: dict[str, str], name: str) -> bool:
    """Whether an entry is an indoor object, neither tiny nor huge."""
    size = [float(entry[k]) / 100 for k in ('width', 'depth', 'height')]
    indoor = entry['category'] in INDOOR or name in ALSO
    return indoor and bool(name) and not NEVER.search(name) and 0.06 < max(size) < 3.2 and size[2] < 2.35
