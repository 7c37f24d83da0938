"""`make docs`: lays what the site is made of into a folder, in the order of the repository.

Pages, and the files that they link to, keep their places, so a link that holds on a host of repositories
holds on the site. CHANGELOG.rst becomes Markdown; messages and the core's API get pages of their own.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*ROOT.glob('*.md'), *(ROOT / 'docs').glob('*.md'), ROOT / 'test' / 'README.md']
LINK = re.compile(r'\]\(([^)\s#:]+)(?:#[^)\s]*)?\)')
BADGE = re.compile(r'\[!\[[^\]]*\]\(\.\./\.\./[^)]*\)\]\([^)]*\)')  # of the host of the repository
API = {  # page: title, modules
    'pipeline': ('Pipeline', ['pipeline']),
    'scene': ('Scene', ['scene.scene', 'scene.approach', 'scene.scene_file']),
    'map': (
        'Map',
        ['mapping.map', 'mapping.fusion', 'mapping.map_index', 'mapping.map_file', 'mapping.merging'],
    ),
    'answer': ('Question and Answer', ['semantics.answer', 'semantics.objects', 'semantics.relevancy']),
    'gaussians': ('Gaussians', ['gaussians.gaussians', 'gaussians.render', 'gaussians.rotations']),
    'images': (
        'Images and cameras',
        ['images.view', 'images.camera', 'images.calibration', 'images.image_file'],
    ),
    'formats': ('Formats', ['formats.*']),
    'checkpoints': ('Checkpoints', ['checkpoints.checkpoint', 'checkpoints.card', 'checkpoints.convert']),
}


def stage(folder: Path) -> None:
    """Fill `folder`, whatever it held. Raises ValueError for a link that leads out of the repository."""
    shutil.rmtree(folder, ignore_errors=True)
    for page in PAGES:
        text = BADGE.sub('', page.read_text())
        write(folder / page.relative_to(ROOT), text)
        for link in LINK.findall(text):
            target = (page.parent / link).resolve()
            if not target.is_relative_to(ROOT):
                raise ValueError(f'{page.relative_to(ROOT)} links to {link}, no file of this repository')
            if target.is_file() and target not in PAGES:
                copy = folder / target.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(target, copy)
    for asset in ('iframe-worker.js', 'wide.css'):
        shutil.copyfile(Path(__file__).with_name(asset), folder / asset)
    write(folder / 'CHANGELOG.md', changelog((ROOT / 'CHANGELOG.rst').read_text()))
    write(folder / 'messages.md', messages())
    for name, (title, modules) in API.items():
        write(folder / 'api' / f'{name}.md', f'# {title}\n\n' + '\n'.join(map(reference, found(modules))))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def changelog(text: str) -> str:
    """reStructuredText, as far as CHANGELOG.rst has any, in Markdown."""
    text = re.sub(r'^\^+\n(.+)\n\^+$', r'# \1', text, flags=re.M)
    text = re.sub(r'^(.+)\n-{3,}$', r'\n## \1\n', text, flags=re.M)
    text = re.sub(r'`([^`<]+) <([^>]+)>`_', r'[\1](\2)', text)
    return text.replace('``', '`')


def messages() -> str:
    """Messages and services with their comments."""
    parts = [
        '# Messages and services\n',
        'The interfaces of the package `gsemsplat_msgs`, as they lie in `msg/`. The tables of the',
        '[front page](README.md#topics) say which topic or service has which.\n',
    ]
    for kind, title in (('msg', 'Messages'), ('srv', 'Services')):
        parts.append(f'## {title}\n')
        for path in sorted((ROOT / 'msg' / kind).glob(f'*.{kind}')):
            parts += [f'### {path.stem}\n', '```python', path.read_text().rstrip(), '```\n']
    return '\n'.join(parts)


def found(modules: list[str]) -> list[str]:
    """Dotted names below gsemsplat_ros; `folder.*` is each module of a folder."""
    names = []
    for module in modules:
        folder, _, last = module.rpartition('.')
        files = sorted((ROOT / 'gsemsplat_ros' / folder).glob(f'{last}.py'))
        if not files:
            raise ValueError(f'the API page names gsemsplat_ros.{module}, which is not there')
        names += [f'{folder}.{file.stem}'.lstrip('.') for file in files if file.stem != '__init__']
    return names


def reference(module: str) -> str:
    return f'::: gsemsplat_ros.{module}\n'


if __name__ == '__main__':
    stage(Path(sys.argv[1]).resolve())
