"""Where files are written: in the place of others as a whole, or into an open one."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from typing import IO, Any, BinaryIO, TypeAlias

from ._arguments import as_path

Target: TypeAlias = str | os.PathLike[str] | IO[bytes]
_EXPECTED = "str, os.PathLike[str] or a writable binary file"


@contextlib.contextmanager
def writing(target: Target) -> Iterator[Callable[[memoryview], None]]:
    """Give what appends bytes: to a new file for a path, as `replacing`, or to a file object.

    Raises:
        TypeError: neither of the two, or a file of text.
        ValueError: no name of a file, or a file that is not open for writing.
    """
    if isinstance(target, (str, os.PathLike)) or not hasattr(target, "write"):
        with replacing(as_path(target, _EXPECTED)) as file:
            yield lambda data: _write(file, data)
        return
    if hasattr(target, "encoding"):  # of whatever class: of io, tempfile, codecs.open
        raise TypeError(f"path: expected {_EXPECTED}, got {type(target).__name__}, one of text")
    if hasattr(target, "writable") and not target.writable():
        raise ValueError("path: expected a file that is open for writing, got one for reading")
    yield lambda data: _write(target, data)


def _write(file: Any, data: memoryview) -> None:
    """Write all of it: a file without a buffer may take a part at a time."""
    while data:
        count = file.write(data)
        if count is None and not isinstance(file, io.RawIOBase):
            return  # by some class that does not say; one call then is all there is to do
        if not count:
            raise OSError(errno.EAGAIN, f"expected a file that takes {len(data)} more bytes")
        data = data[count:]


@contextlib.contextmanager
def replacing(path: str) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of `path`, and its mode, when the block ends well."""
    target = os.path.realpath(path)  # a link stays a link
    if os.path.lexists(target) and not os.path.isfile(target):
        code = errno.EISDIR if os.path.isdir(target) else errno.EEXIST
        raise OSError(code, "expected the name of a file, or of none yet", target)
    # Not the target's name and more: that may be as long as a file system takes.
    temporary = os.path.join(os.path.dirname(target), f"fastrnn-{secrets.token_hex(8)}.tmp")
    private = 0o600 if os.path.lexists(target) else 0o666  # until it has the mode of what is there
    with _naming(target):
        file = open(  # noqa: SIM115 (the block below closes it)
            temporary, "xb", opener=lambda name, flags: os.open(name, flags, private)
        )
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
