"""Furniture with names and true sizes: the Debian package `sweethome3d-furniture`, packed into one mesh file.

The package has five `.sh3f` catalogues: zip files of OBJ + MTL models and a latin-1 `.properties` list in
centimetres. `load_furniture` keeps the indoor models whose mesh agrees with the catalogue size and packs them
without pickle. Model frame after packing: x to the right, y to the back (the front faces -y), z up, origin at
the middle of the bottom, metres.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import zipfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gsemsplat_ros.datasets.packed_rooms import FURNITURE_VERSION
from gsemsplat_ros.files import write_whole
from gsemsplat_ros.rooms.catalogue import (
    HELDOUT_MESHES,
    HELDOUT_NAMES,
    SOURCES,
    base_noun,
    clean_name,
    drawn,
    read_catalogue,
    wanted,
)
from gsemsplat_ros.rooms.mesh import Mesh, restored, squeezed
from gsemsplat_ros.rooms.wavefront import read_mtl, read_obj

log = logging.getLogger(__name__)

PACKAGE_DIR = Path('/usr/share/sweethome3d/furniture')
TEXTURE = 256  # every texture is this many pixels square
MAX_FACES = 20_000
TOP = 32  # cells per side of the height map on which small objects are placed


@dataclass(frozen=True)
class Model:
    """One piece of furniture.

    size (3,) m along x, y, z; elevation m: height above the floor according to the catalogue; top (TOP, TOP)
    m: height of the highest surface in each cell of the footprint [row = y, column = x], 0 without a surface.
    """

    name: str
    noun: str
    category: str
    library: str
    creator: str
    size: tuple[float, float, float]
    elevation: float
    heldout: bool
    top: np.ndarray


class Furniture:
    """The packed models; `models[i]` belongs to `mesh(i)`."""

    def __init__(self, path: Path):
        with np.load(path, allow_pickle=False) as pack:
            self._data = {key: pack[key] for key in pack.files}
        meta = json.loads(str(self._data.pop('meta')))
        self.models = tuple(
            Model(**{**m, 'size': tuple(m['size'])}, top=self._data['top'][i].astype(np.float32))
            for i, m in enumerate(meta)
        )

    def mesh(self, index: int) -> Mesh:
        """The triangles of `models[index]`."""
        vertices = slice(*self._data['vertex_start'][index : index + 2])
        corners = slice(*self._data['corner_start'][index : index + 2])
        return restored(
            {
                'box': self._data['box'][index],
                'corners': self._data['corners'][:, corners],
                **{
                    k: self._data[k][:, vertices]
                    for k in ('positions', 'normals', 'uvs', 'colors', 'textures')
                },
            }
        )

    def texture(self, index: int) -> np.ndarray:
        """(TEXTURE, TEXTURE, 4) uint8 RGBA."""
        start, stop = self._data['texture_start'][index : index + 2]
        image = cv2.imdecode(self._data['texture_bytes'][start:stop], cv2.IMREAD_UNCHANGED)
        assert image is not None, 'packed by this module'
        code = cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGBA
        return cv2.cvtColor(image, code)


def load_furniture(cache_dir: Path | None = None, package_dir: Path = PACKAGE_DIR) -> Furniture:
    """Open the packed models; if the cache has none, pack them first (about half a minute).

    Raises ValueError if both the cache and the Debian package are missing, or the packed file is broken.
    """
    cache_dir = Path(cache_dir) if cache_dir else Path.home() / '.cache' / 'gsemsplat'
    path = cache_dir / f'gsemsplat-furniture-{FURNITURE_VERSION}.npz'
    if not path.exists():
        if not any(Path(package_dir).glob('*.sh3f')):
            raise ValueError(
                f'no furniture catalogues in {package_dir}: install the Debian package sweethome3d-furniture '
                f'or copy {path.name} from a machine that has rendered rooms into {cache_dir}'
            )
        cache_dir.mkdir(parents=True, exist_ok=True)
        with open(path.with_suffix('.lock'), 'w') as lock:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX)  # of several processes that want it at once, one packs
            if not path.exists():
                log.info('packing the furniture of %s once, half a minute', package_dir)
                with write_whole(path) as part, open(part, 'wb') as file:
                    np.savez_compressed(file, **_pack(Path(package_dir)))  # type: ignore[arg-type]  # the stub's other keyword is a bool
    try:
        return Furniture(path)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f'{path} is no packed furniture ({error}): delete it, or copy it again') from None


def attribution(furniture: Furniture) -> str:
    """Markdown list of the libraries, licences and authors of the models."""
    lines = ['| library | models | authors | licence |', '|---|---|---|---|']
    for library, (authors, licence, link) in SOURCES.items():
        mine = [m for m in furniture.models if m.library == library]
        lines.append(f'| {library} | {len(mine)} | {authors} | [{licence}]({link}) |')
    for library in SOURCES:
        creators = sorted({m.creator for m in furniture.models if m.library == library and m.creator})
        lines += ['', f'**{library}**: ' + ', '.join(creators) + '.']
    return '\n'.join(lines) + '\n'


def credits(furniture: Furniture, models: Iterable[int]) -> tuple[tuple[str, str, str], ...]:
    """Library, creators and licence of these models, for a picture that shows them."""
    creators: dict[str, set[str]] = {}
    for model in (furniture.models[i] for i in models):
        creators.setdefault(model.library, set()).add(model.creator)
    return tuple(
        (
            library,
            ', '.join(sorted(filter(None, creators[library]))) or SOURCES[library][0],
            SOURCES[library][1],
        )
        for library in sorted(creators)
    )


def _height_map(vertices: np.ndarray, faces: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Highest surface point of each cell (TOP, TOP) [m]: samples every triangle on a barycentric lattice."""
    n = 24 if len(faces) < 3000 else 6
    i, j = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing='ij')
    keep = i + j <= n
    b = np.stack([i[keep], j[keep], n - i[keep] - j[keep]], 1) / n
    first, second, third = np.moveaxis(vertices[faces][:, :, None], 1, 0)  # (F, 1, 3) each
    points = (b[:, :1] * first + b[:, 1:2] * second + b[:, 2:] * third).reshape(-1, 3)
    cell = np.clip(((points[:, :2] / np.maximum(size[:2], 1e-6) + 0.5) * TOP).astype(int), 0, TOP - 1)
    top = np.zeros((TOP, TOP))
    np.maximum.at(top, (cell[:, 1], cell[:, 0]), points[:, 2])
    return top


def _mesh(
    archive: zipfile.ZipFile,
    entry: dict[str, str],
    files: dict[str, str],
    add_texture: Callable[[zipfile.ZipFile, str | None], int],
) -> dict[str, Any] | None:
    """One catalogue entry as arrays; None if its mesh is too large, empty, or not of the catalogue size."""
    path = entry['model'].lstrip('/')
    if path.lower() not in files or not path.lower().endswith('.obj'):
        return None
    raw = archive.read(files[path.lower()])
    if raw.count(b'\nf ') > MAX_FACES:
        return None
    vertices, uvs, normals, corners, names, library = read_obj(raw.decode('latin-1'))
    folder = path.rsplit('/', 1)[0]
    mtl = files.get(f'{folder}/{library}'.lower())
    materials = read_mtl(archive.read(mtl).decode('latin-1')) if mtl else {}
    looks = [materials.get(n, ((0.7, 0.7, 0.7), 1.0, '')) for n in names] + [((0.7, 0.7, 0.7), 1.0, '')]
    opacity = np.array([look[1] for look in looks])
    used = corners[..., 0]
    turn = np.array([float(x) for x in entry.get('modelRotation', '1 0 0 0 1 0 0 0 1').split()]).reshape(3, 3)
    if not len(corners) or len(corners) > MAX_FACES:
        return None
    to_z_up = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]) @ turn
    vertices = vertices @ to_z_up.T
    low, high = vertices[used].reshape(-1, 3).min(0), vertices[used].reshape(-1, 3).max(0)
    size = np.array([float(entry[k]) / 100 for k in ('width', 'depth', 'height')])
    ratio = size / np.maximum(high - low, 1e-9)
    solid = size > 0.02  # a thin sheet's thickness cannot be compared
    if solid.sum() < 2 or ratio[solid].max() / ratio[solid].min() > 1.1:
        return None
    ratio = np.where(solid, ratio, np.median(ratio[solid]))
    vertices = (vertices - [*((low + high)[:2] / 2), low[2]]) * ratio
    corners = corners[opacity[corners[:, 0, 3]] >= 0.1]  # drop fully transparent helper faces
    if not len(corners):
        return None
    rows = corners.reshape(-1, 4)
    # sorting single numbers is faster than sorting rows of four
    key = np.ravel_multi_index((rows + 1).T, rows.max(0) + 2)
    first, index = np.unique(key, return_index=True, return_inverse=True)[1:]
    rows = rows[first]
    faces = index.reshape(-1, 3).astype(np.int32)
    normal: np.ndarray = np.zeros((len(rows), 3))
    if len(normals):
        normal = np.where(rows[:, 2:3] >= 0, (normals @ to_z_up.T)[rows[:, 2]], 0)
        length = np.linalg.norm(normal, axis=1, keepdims=True)
        normal = np.where(length > 1e-6, normal / np.maximum(length, 1e-6), 0)
    uv = (
        np.where(rows[:, 1:2] >= 0, uvs[rows[:, 1]] * [1, -1] + [0, 1], 0)
        if len(uvs)
        else np.zeros((len(rows), 2))
    )
    textures = [
        add_texture(archive, files.get(f'{folder}/{look[2]}'.lower())) if look[2] and len(uvs) else -1
        for look in looks
    ]
    texture = np.where(rows[:, 1] >= 0, np.array(textures)[rows[:, 3]], -1).astype(np.int16)
    color = np.array([look[0] for look in looks])[rows[:, 3]]
    color = np.where(texture[:, None] >= 0, 1.0, np.clip(color, 0.03, 1))
    position = vertices[rows[:, 0]]
    return dict(
        vertices=position.astype(np.float32),
        normals=normal.astype(np.float32),
        uv=uv.astype(np.float32),
        colors=np.round(np.clip(color, 0, 1) * 255).astype(np.uint8),
        textures=texture,
        faces=faces,
        size=size,
        top=_height_map(position, faces, size),
    )


def _pack(package_dir: Path) -> dict[str, np.ndarray]:
    """All wanted models as flat arrays (see `Furniture`)."""
    blobs: list[bytes] = []
    seen: dict[str, int] = {}
    taught: set[str] = set()  # nouns on the training side
    sides: dict[str, bool] = {}  # shape -> held out: a shape under two names stays on one side of the split

    def add_texture(archive: zipfile.ZipFile, path: str | None) -> int:
        if path is None:
            return -1
        image = cv2.imdecode(np.frombuffer(archive.read(path), np.uint8), cv2.IMREAD_UNCHANGED)
        if image is None or image.dtype != np.uint8:
            return -1
        if image.ndim == 2:
            image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
        image = cv2.resize(image, (TEXTURE, TEXTURE), interpolation=cv2.INTER_AREA)
        cut_out = image.shape[2] == 4 and image[..., 3].min() < 250
        data = cv2.imencode('.png' if cut_out else '.jpg', image if cut_out else image[..., :3])[1].tobytes()
        key = hashlib.sha1(data).hexdigest()
        if key not in seen:
            seen[key] = len(blobs)
            blobs.append(data)
        return seen[key]

    meshes, meta = [], []
    for path in sorted(package_dir.glob('*.sh3f')):
        with zipfile.ZipFile(path) as archive:
            files = {n.lower(): n for n in archive.namelist()}
            for entry in read_catalogue(archive):
                name = clean_name(entry['name'])
                mesh = _mesh(archive, entry, files, add_texture) if wanted(entry, name) else None
                if mesh is None:
                    continue
                shape = hashlib.sha1(mesh['faces'].tobytes() + mesh['uv'].tobytes()).hexdigest()
                noun = base_noun(name)
                aside = drawn(name, HELDOUT_NAMES) or (noun in taught and drawn(shape, HELDOUT_MESHES))
                heldout = sides.setdefault(shape, aside)
                if not heldout:
                    taught.add(noun)
                meta.append(
                    dict(
                        name=name,
                        noun=noun,
                        category=entry['category'],
                        library=path.stem,
                        creator=entry.get('creator', ''),
                        size=[float(x) for x in mesh.pop('size')],
                        elevation=float(entry.get('elevation', 0)) / 100,
                        heldout=heldout,
                    )
                )
                meshes.append(mesh)

    def starts(items: list) -> np.ndarray:
        return np.cumsum([0] + [len(item) for item in items]).astype(np.int64)

    tops = [m.pop('top') for m in meshes]
    parts = [squeezed(Mesh(**m)) for m in meshes]
    return dict(
        {key: np.concatenate([part[key] for part in parts], 1) for key in parts[0] if key != 'box'},
        box=np.stack([part['box'] for part in parts]),
        meta=np.array(json.dumps(meta)),
        top=np.stack(tops).astype(np.float16),
        vertex_start=starts([part['colors'].T for part in parts]),
        corner_start=starts([part['corners'].T for part in parts]),
        texture_start=starts(blobs),
        texture_bytes=np.frombuffer(b''.join(blobs), np.uint8),
    )
