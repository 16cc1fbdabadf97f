"""Files that take the place of others as a whole."""

from __future__ import annotations

import contextlib
import errno
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
    if os.path.lexists(target) and not os.path.isfile(target):
        code = errno.EISDIR if os.path.isdir(target) else errno.EEXIST
        raise OSError(code, "expected the name of a file, or of none yet", target)
    temporary = f"{target}.{secrets.token_hex(8)}.tmp"
    with _naming(target):
        file = open(temporary, "xb")  # noqa: SIM115 (the block below closes it)
    try:
        with file:
            with contextlib.suppress(OSError):  # no such file yet; a file system without modes
                os.chmod(temporary, stat.S_IMODE(os.stat(target).st_mode))
            yield file
            file.flush()
            os.fsync(file.fileno())
        with _naming(target):
            os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


@contextlib.contextmanager
def _naming(target: str) -> Iterator[None]:
    """Let an OSError name the target alone: the caller does not know the temporary file."""
    try:
        yield
    except OSError as error:
        error.filename = target
        del error.filename2  # None would be shown
        raise
