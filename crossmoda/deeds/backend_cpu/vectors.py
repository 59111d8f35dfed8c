"""LLVM vector instructions for compiled loops that LLVM's own vectorizer leaves slower.

Functions made by :data:`intrinsic` emit LLVM instructions. They work on addresses and offsets in bytes: numba counts
references to each view of an array, which takes as long as the work on a row where threads share the array.

numba's cache on disk checks only the file of a compiled function: after a change here, those of its users are stale.
"""

import functools
from typing import Any

import numba.extending
from llvmlite import ir

#: As numba's; type checkers see one argument too many.
intrinsic: Any = numba.extending.intrinsic

WORD, SINGLE = ir.IntType(64), ir.FloatType()


def words(value: int) -> Any:
    """Return a 64-bit constant."""
    return ir.Constant(WORD, value)


def numbers(lanes: int) -> Any:
    """Return the type of a vector of float32."""
    return ir.VectorType(SINGLE, lanes)


def same(kind: Any, value: float) -> Any:
    """Return a constant vector of one value."""
    return ir.Constant(kind, [value] * kind.count)


def load(builder: Any, kind: Any, *address: Any, align: int = 4) -> Any:
    """Read a value at the sum of addresses and offsets."""
    return builder.load(builder.inttoptr(functools.reduce(builder.add, address), kind.as_pointer()), align=align)


def store(builder: Any, value: Any, *address: Any, align: int = 4) -> None:
    """Write a value at the sum of addresses and offsets."""
    builder.store(value, builder.inttoptr(functools.reduce(builder.add, address), value.type.as_pointer()), align=align)


def spread(builder: Any, value: Any, lanes: int) -> Any:
    """Return a vector of a float32."""
    nothing = ir.Constant(numbers(lanes), ir.Undefined)
    first = builder.insert_element(nothing, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, nothing, same(ir.VectorType(ir.IntType(32), lanes), 0))


def _transposed(builder: Any, vectors: list[Any]) -> list[Any]:
    """Return eight vectors of eight numbers with rows and columns exchanged: riffled three times."""
    indices = ir.VectorType(ir.IntType(32), 8)
    halves = [ir.Constant(indices, [first + n // 2 + n % 2 * 8 for n in range(8)]) for first in (0, 4)]
    for _ in range(3):
        pairs = zip(vectors[:4], vectors[4:], strict=True)
        vectors = [builder.shuffle_vector(upper, lower, half) for upper, lower in pairs for half in halves]
    return vectors


def store_transposed(builder: Any, vectors: list[Any], addresses: list[Any]) -> None:
    """Write number k of each vector at the k-th of eight addresses, in the order of the vectors.

    Rows are stored in pieces as long as a power of two; the last piece overlaps the piece before.
    """
    count = len(vectors)
    length = 1 << min(count.bit_length() - 1, 3)
    for first in dict.fromkeys([*range(0, count - length, length), count - length]):
        piece = vectors[first : first + length]
        for row, address in zip(_transposed(builder, piece + piece[:1] * (8 - length)), addresses, strict=True):
            places = ir.Constant(ir.VectorType(ir.IntType(32), length), list(range(length)))
            store(builder, builder.shuffle_vector(row, row, places), address, words(4 * first))
