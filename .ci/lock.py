"""`make lock`: write the SHA-256 of each file that pip may take into requirements.lock.

Run it after a version was changed there. Files are the wheels of the five Pythons for Linux on x86-64 and
aarch64, as the index of pip lists them, and those that lie in a folder of PIP_FIND_LINKS (builds of torch
without CUDA); of a package without a wheel for each Python that takes it, its source too. Look at what has
changed before you commit it: a release never changes, so a hash that goes is a reason to ask why.
"""

from __future__ import annotations

import hashlib
import json
import os
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pip._internal.models.index import PyPI
from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.tags import Tag
from pip._vendor.packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    parse_sdist_filename,
    parse_wheel_filename,
)

LOCK = Path(__file__).resolve().parents[1] / 'requirements.lock'
INDEX = os.environ.get('PIP_INDEX_URL', PyPI.simple_url)
JSON = 'application/vnd.pypi.simple.v1+json'  # PEP 691
PYTHONS = range(10, 15)  # 3.10 to 3.14
MACHINES = 'x86_64', 'aarch64'


def pythons(tag: Tag) -> set[int]:
    """The minor versions of Python that take a wheel of this tag on Linux."""
    system, _, machine = tag.platform.partition('_')
    if tag.platform != 'any' and not (
        system in ('linux', 'manylinux1', 'manylinux2010', 'manylinux2014', 'manylinux')
        and machine.endswith(MACHINES)
    ):
        return set()
    if tag.interpreter == 'py3':
        return set(PYTHONS)
    oldest = int(tag.interpreter[3:]) if tag.interpreter.startswith('cp3') else 99
    if tag.abi == 'abi3':
        return {python for python in PYTHONS if python >= oldest}
    return {oldest} & set(PYTHONS) if tag.abi in (tag.interpreter, 'none') else set()


def hashes(requirement: Requirement) -> Iterator[str]:
    """Of the files of the pinned release, for the Pythons that take it."""
    marker = requirement.marker
    wanted = {n for n in PYTHONS if marker is None or marker.evaluate({'python_version': f'3.{n}'})}
    request = urllib.request.Request(f'{INDEX.rstrip("/")}/{requirement.name}/', headers={'Accept': JSON})
    with urllib.request.urlopen(request, timeout=60) as answer:
        files = {file['filename']: file['hashes']['sha256'] for file in json.load(answer)['files']}
    for folder in os.environ.get('PIP_FIND_LINKS', '').split():
        for path in Path(folder).glob(f'{requirement.name}-*.whl'):
            files[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    served, sources = set(), []
    for name, digest in files.items():
        try:
            of, version, *_, tags = parse_wheel_filename(name)
        except InvalidWheelFilename:
            sources.append((name, digest))
            continue
        if of == requirement.name and version in requirement.specifier:
            fits = set().union(*map(pythons, tags)) & wanted
            served |= fits if any(t.platform == 'any' or 'x86_64' in t.platform for t in tags) else set()
            if fits:
                yield digest
    for name, digest in sources if served != wanted else ():
        try:
            of, version = parse_sdist_filename(name)
        except InvalidSdistFilename:
            continue
        if of == requirement.name and version in requirement.specifier:
            yield digest


def locked(line: str) -> str:
    """The line of a package with its hashes."""
    if line.startswith('#') or not line.strip():
        return line
    pin = line.split(' --hash=')[0]
    found = sorted(set(hashes(Requirement(pin))))
    if not found:
        raise SystemExit(f'{pin}: the index has no file of it for Linux and Python 3.10 to 3.14')
    return ' '.join([pin, *(f'--hash=sha256:{digest}' for digest in found)])


with ThreadPoolExecutor(4) as pool:
    lines = list(pool.map(locked, LOCK.read_text().splitlines()))
LOCK.write_text('\n'.join(lines) + '\n')
