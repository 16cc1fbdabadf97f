"""Files that take the place of others as a whole."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from typing import BinaryIO

from ._arguments import as_path


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of `path`, and its mode, when the block ends well."""
    target = os.path.realpath(as_path(path))  # a link stays a link
    temporary = f"{target}.{secrets.token_hex(8)}.tmp"
    try:
        file = open(temporary, "xb")  # noqa: SIM115 (the block below closes it)
    except OSError as error:
        error.filename = target  # the name that the caller knows
        raise
    try:
        with file:
            with contextlib.suppress(OSError):  # no such file yet; a file system without modes
                os.chmod(temporary, stat.S_IMODE(os.stat(target).st_mode))
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
