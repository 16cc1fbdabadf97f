"""The argument policy of the whole package, in one place.

Calls whose arrays need no second look do not come here: python/plain.h of the core knows them.
Arrays may be NumPy's or anything with ``__dlpack__`` or ``__array__``. What is C-contiguous is used
where it lies; strided arrays too, as long as their last axis is dense and no stride is negative
(else one copy is made). A wrong dtype is never cast. Every message names the argument first, then
says what was expected, with its numbers, then what came, then a hint where there is one.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from . import _core
from ._hints import names_hint

Array: TypeAlias = npt.NDArray[Any]
Shape: TypeAlias = tuple[int, ...]
Form: TypeAlias = tuple[Shape, np.dtype[Any]]

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def as_array(name: str, value: Any, dtype: np.dtype[Any]) -> Array:
    """Return `value` as an aligned ndarray of `dtype` whose last axis is dense, or raise TypeError.

    The first three lines are for what the core can read as it is: about 0.2 us.
    """
    if type(value) is np.ndarray and (value.dtype is dtype or value.dtype == dtype):
        flags = value.flags
        if flags.c_contiguous and flags.aligned:
            return value
    array = _import_array(name, value, f"np.{dtype.name}")
    if array.dtype != dtype:
        tensor = hasattr(value, "float") and not hasattr(value, "astype")  # torch's
        raise TypeError(_dtype_message(name, array.dtype, dtype, tensor))
    return array if _readable(array) else np.array(array, order="C")


def as_contiguous(name: str, value: Any, dtype: np.dtype[Any]) -> Array:
    """Like `as_array`, and C-contiguous, as the core wants states and weights."""
    array = as_array(name, value, dtype)
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def as_floats(name: str, value: Any, dtypes: Sequence[np.dtype[Any]] = FLOATS) -> Array:
    """Like `as_array`, of any of these dtypes: float32 or float64."""
    array = value if type(value) is np.ndarray else _import_array(name, value)
    if array.dtype not in dtypes:
        native = array.dtype.newbyteorder("=")
        if native in dtypes:
            raise TypeError(_dtype_message(name, array.dtype, native))
        expected = " or ".join(dtype.name for dtype in dtypes)
        raise TypeError(f"{name}: expected dtype {expected}, got {array.dtype}")
    return as_array(name, array, array.dtype)


def as_indices(name: str, value: Any) -> Array:
    """Return an array of any integer dtype; a list or a range is taken as one."""
    array = as_values(name, value, np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected an integer dtype, got {array.dtype}")
    return array


def as_values(name: str, value: Any, empty: npt.DTypeLike) -> Array:
    """Return an array of any dtype; a number, a list or a range is taken as one.

    `empty` is the dtype of lists without values, which NumPy makes float64.
    """
    if not isinstance(value, (int, list, tuple, range)):
        return _import_array(name, value)
    try:
        array = np.asarray(value)
    except (ValueError, Warning) as error:  # a warning, if those are errors, before NumPy 1.24
        message = f"{name}: expected lists of equal lengths, got {value!r:.80}"
        raise ValueError(message) from error
    except Exception as error:  # of what is in it, as tensors of torch that require grad
        got = type(value).__name__
        raise TypeError(f"{name}: cannot read this {got} as an array: {error}") from error
    return array if array.size else array.astype(empty)


def refuse_masked(name: str, value: Any) -> None:
    """Raise TypeError for a masked array, whose mask everything here would ignore."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected a plain array, got a masked one; use .filled(...)")


def _import_array(name: str, value: Any, dtype: str = "...") -> Array:
    """Return it as an ndarray, or raise; `dtype` is the one for the hint, where it is known."""
    refuse_masked(name, value)
    if isinstance(value, np.ndarray):
        return np.asarray(value)
    failure: Exception | None = None
    # BufferError, RuntimeError and more, by library: a tensor that requires grad, one on a device.
    for protocol, read in (("__dlpack__", _read_dlpack), ("__array__", np.asarray)):
        if hasattr(value, protocol):
            try:
                return read(value)
            except Exception as error:
                failure = failure or error
    got = type(value).__name__
    if failure is not None:
        has = getattr(value, "dtype", None)  # bfloat16 is a dtype of torch's, but not of NumPy's
        shown = got if has is None else f"{got} of {has}"
        hint = f"; try {name}.float()" if str(has) == "torch.bfloat16" else ""
        message = f"{name}: cannot read this {shown} as an array: {failure}{hint}"
        raise TypeError(message) from failure
    raise TypeError(f"{name}: expected an array, got {got}; try np.asarray({name}, dtype={dtype})")


def _read_dlpack(value: Any) -> Array:
    # A view of torch's may be marked as negated, of which DLPack tells nothing.
    is_negated = getattr(value, "is_neg", None)
    return np.from_dlpack(value.resolve_neg() if callable(is_negated) and is_negated() else value)


def as_writable(name: str, value: Any, hint: str = "") -> Array:
    """Return a NumPy array of float32 or float64 that can be changed where it lies, or raise.

    `hint` is for those that can only be read.
    """
    refuse_masked(name, value)
    if not isinstance(value, np.ndarray):  # np.float32(1), what a sum is, among others
        got = f"{type(value).__name__}, which is none; try np.asarray(...)"
        raise TypeError(f"{name}: expected a float32 or float64 array, got {got}")
    if value.dtype not in FLOATS:
        raise TypeError(f"{name}: expected a float32 or float64 array, got {value.dtype}")
    if not value.flags.writeable:
        raise ValueError(f"{name}: expected a writable array, got a read-only one{hint}")
    return value


def _dtype_message(
    name: str, got: np.dtype[Any], expected: np.dtype[Any], tensor: bool = False
) -> str:
    shown = got.name if got.isnative else f"{got.name} in foreign byte order"
    cast = f"astype(np.{expected.name})"
    if tensor:
        cast = "float()" if expected == np.float32 else "double()"
    hint = f"try {name}.{cast}" if got.kind in "fiub" else ""
    return f"{name}: expected dtype {expected.name}, got {shown}" + (f"; {hint}" if hint else "")


def _readable(array: Array) -> bool:
    """True when the core can walk the array: dense last axis, no negative stride, aligned."""
    if not array.flags.aligned:
        return False
    if array.ndim == 0 or array.size == 0:
        return bool(array.flags.c_contiguous)
    dense = array.shape[-1] == 1 or array.strides[-1] == array.itemsize
    return dense and min(array.strides) >= 0


def shape_error(name: str, expected: str, got: Shape, hint: str = "") -> ValueError:
    """Return the error for a wrong shape: `x: expected shape [..], got [..]; hint`."""
    return ValueError(
        f"{name}: expected shape {expected}, got {show_shape(got)}" + (f"; {hint}" if hint else "")
    )


def show_shape(shape: Sequence[int]) -> str:
    """Return `[2, 3]` for (2, 3)."""
    return f"[{', '.join(map(str, shape))}]"


def as_lengths(array: Array, steps: int, batch: int, hint: str = "") -> npt.NDArray[np.int64]:
    """Return `lengths`, an array of integers, as int64 [B], each checked to lie in 0..T."""
    if array.shape != (batch,):
        raise shape_error("lengths", f"[{batch}] (one length per batch row)", array.shape, hint)
    wrong = np.flatnonzero((array < 0) | (array > steps))
    if wrong.size:
        row = int(wrong[0])
        raise ValueError(
            f"lengths: expected values in 0..T = {steps}, got {array[row]} at row {row}"
        )
    return np.ascontiguousarray(array, dtype=np.int64)


def as_dtype(value: Any) -> np.dtype[Any]:
    """Return np.dtype float32 or float64, or raise TypeError."""
    try:
        # np.dtype(None) is float64
        return FLOATS[FLOATS.index(np.dtype("V" if value is None else value))]
    except (TypeError, ValueError, SyntaxError):  # the last for "(1,", which NumPy has Python parse
        message = f"dtype: expected np.float32 or np.float64, got {_show(value)}"
        raise TypeError(message) from None


MOST_SIZE = _core.max_size
MOST_THREADS = _core.max_threads
MOST_INT = (1 << 31) - 1  # that of a C++ int


def as_size(name: str, value: Any, minimum: int = 1, maximum: int | None = MOST_INT) -> int:
    """Return an integer in minimum..maximum; a float or a bool is a TypeError."""
    try:
        if _is_bool(value):
            raise TypeError
        size = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {_show(value)}") from None
    if size < minimum:
        raise ValueError(f"{name}: expected an integer >= {minimum}, got {_show(size)}")
    if maximum is not None and size > maximum:
        raise ValueError(f"{name}: expected an integer <= {maximum}, got {_show(size)}")
    return size


def _is_bool(value: Any) -> bool:
    """Whether it is a bool, or what NumPy or torch has of one, which Python reads as a number."""
    dtype = getattr(value, "dtype", None)
    return isinstance(value, bool) or (dtype is not None and str(dtype) in ("bool", "torch.bool"))


def _show(value: Any) -> str:
    """Return its repr, cut where it is long; of an integer, of which Python shows at most 4300
    digits, the number of bits then."""
    large = isinstance(value, int) and value.bit_length() > 256
    return f"an integer of {value.bit_length()} bits" if large else f"{value!r:.80}"


def as_flag(name: str, value: Any) -> bool:
    """Return a bool; anything else is a TypeError, so that misplaced positionals are noticed."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected True or False, got {_show(value)}")
    return bool(value)


# float() takes them: text that is read, complex numbers without their imaginary part, durations.
_NO_REALS = (str, bytes, np.complexfloating, np.timedelta64)


def as_real(
    name: str,
    value: Any,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_high: bool = False,
    infinite: bool = False,
) -> float:
    """Return a finite float, with `infinite` maybe inf, in low..high (without, if `open_high`)."""
    try:
        if type(value) is not float and (_is_bool(value) or isinstance(value, _NO_REALS)):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, RuntimeError):  # the last is what torch's complex tensors raise
        raise TypeError(f"{name}: expected a number, got {_show(value)}") from None
    except OverflowError:  # 10**400
        number = math.nan
    above = number >= high if open_high else number > high
    finite = math.isfinite(number) or (infinite and number == math.inf)
    if not finite or number < low or above:
        kind = "a number" if infinite else "a finite number"
        if low == -math.inf:
            expected = kind
        elif high == math.inf:
            expected = f"{kind} >= {low:g}"
        else:
            expected = f"a number in [{low:g}, {high:g}{')' if open_high else ']'}"
        raise ValueError(f"{name}: expected {expected}, got {_show(value)}")
    return number


def as_choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """Return one of `choices`, or raise ValueError listing them."""
    if not isinstance(value, str) or value not in choices:
        listed = " or ".join(map(repr, choices))
        raise ValueError(f"{name}: expected {listed}, got {value!r:.80}")
    return str(value)


def as_seed(value: Any) -> int | None:
    """Return None or an integer >= 0."""
    return None if value is None else as_size("seed", value, 0, None)


def as_path(value: Any, expected: str = "str or os.PathLike[str]") -> str:
    """Return a path of text, or raise TypeError."""
    path = os.fspath(value) if isinstance(value, (str, os.PathLike)) else value
    if not isinstance(path, str):
        raise TypeError(f"path: expected {expected}, got {type(value).__name__}")
    try:
        # Folders' names end so. realpath drops such ends, and a file would get what is left.
        nameable = os.path.basename(path) not in ("", ".", "..") and b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        nameable = False
    if not nameable:
        raise ValueError(f"path: expected the name of a file, got {path!r:.80}")
    return path


def as_threads(name: str, value: Any) -> int:
    """Return a number of threads, 1 to 1,024, or 0 for None: the library's default."""
    return 0 if value is None else as_size(name, value, 1, MOST_THREADS)


def forms(arrays: Mapping[str, Array]) -> dict[str, Form]:
    """Return what `as_weights` expects of arrays that are to take the place of these."""
    return {name: (array.shape, array.dtype) for name, array in arrays.items()}


def as_weights(name: str, given: Any, expected: Mapping[str, Form]) -> dict[str, Array]:
    """Return `given` in the order of `expected`; one ValueError lists all that is wrong."""
    if not isinstance(given, Mapping):
        raise TypeError(f"{name}: expected a dict of arrays by name, got {type(given).__name__}")
    problems = []
    missing = [key for key in expected if key not in given]
    unexpected = [str(key) for key in given if key not in expected]
    if missing:
        problems.append(f"missing {', '.join(missing)}")
    if unexpected:
        hint = names_hint(name, missing, unexpected)
        problems.append(f"unexpected {', '.join(unexpected)}" + (f"; {hint}" if hint else ""))
    found: dict[str, Array] = {}
    for key, (shape, dtype) in expected.items():
        if key in given:
            try:
                found[key] = as_contiguous(key, given[key], dtype)
                if found[key].shape != shape:
                    raise shape_error(key, show_shape(shape), found[key].shape)
            except (TypeError, ValueError) as error:
                problems.append(str(error))
    if problems:
        raise ValueError(f"{name}: " + "\n  ".join(problems))
    return found
