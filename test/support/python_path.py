"""Where processes of a test find modules."""

import os
from pathlib import Path


def python_path(*folders: Path) -> str:
    """PYTHONPATH with these folders first: what it held stays, as ROS and its workspaces are found there."""
    return os.pathsep.join([*map(str, folders), *filter(None, [os.environ.get('PYTHONPATH')])])
