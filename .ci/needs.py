"""What the packages of this checkout need, for pip: `needs.py EXTRA,...`, after they were installed alone.

pip compares hashes of all that it installs or of nothing, and a folder has none. So the packages of the
checkout are installed first, without what they need, and that then by name, with requirements.lock.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires

from pip._vendor.packaging.requirements import Requirement

OURS = 'gsemsplat-ros', 'gsemsplat-msgs', 'tf2-msgs'
extras = ['', *sys.argv[1].split(',')]
texts: set[str] = set()
for package in OURS:
    with suppress(PackageNotFoundError):  # the messages, in the core without ROS
        texts.update(requires(package) or ())
for text in sorted(texts):
    need = Requirement(text)
    if need.name not in OURS and (
        need.marker is None or any(need.marker.evaluate({'extra': extra}) for extra in extras)
    ):
        need.marker = None
        print(need)
