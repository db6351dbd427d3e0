# SPDX-License-Identifier: Apache-2.0
"""What a loaded library calls: a function of another library, found in its table, and one of ours put in its place.

The dynamic linker writes the address of every function that a library calls into a table of that library (the global
offset table of ELF). `Call` finds the place for one name, by the library's own relocations in memory, and changes it.
That is what preloading a library does (ld.so(8), LD_PRELOAD), for one caller and one name, and without a compiler.

Answers for finding the place, for refusing one that does not hold what it should, and for putting back what was there.
Knows neither FUSE nor what the functions do.

Threading: used by one thread, while no other is inside of the function.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self

_KINDS: Final[Mapping[str, frozenset[int]]] = MappingProxyType(
    {"x86_64": frozenset({6, 7}), "aarch64": frozenset({1025, 1026})}
)
"""By machine, the relocations that are addresses of functions to call: R_…_GLOB_DAT and R_…_JUMP_SLOT of its ABI."""
_LINK_MAP: Final = 2
"""RTLD_DI_LINKMAP of dlinfo(3)."""
_END, _SIZE_OF_CALLS, _STRINGS, _SYMBOLS, _RELOCATIONS, _SIZE_OF_RELOCATIONS, _CALLS = 0, 2, 5, 6, 7, 8, 23
"""DT_NULL, DT_PLTRELSZ, DT_STRTAB, DT_SYMTAB, DT_RELA, DT_RELASZ and DT_JMPREL of elf(5)."""


class _LinkMap(ctypes.Structure):
    """The beginning of struct link_map of dlinfo(3)."""

    _fields_ = (("base", ctypes.c_uint64), ("name", ctypes.c_char_p), ("dynamic", ctypes.c_uint64))


class _Dynamic(ctypes.Structure):
    """Elf64_Dyn of elf(5)."""

    _fields_ = (("tag", ctypes.c_int64), ("value", ctypes.c_uint64))


class _Relocation(ctypes.Structure):
    """Elf64_Rela of elf(5)."""

    _fields_ = (("offset", ctypes.c_uint64), ("info", ctypes.c_uint64), ("addend", ctypes.c_int64))


class _Symbol(ctypes.Structure):
    """Elf64_Sym of elf(5)."""

    _fields_ = (
        ("name", ctypes.c_uint32),
        ("info", ctypes.c_ubyte),
        ("other", ctypes.c_ubyte),
        ("section", ctypes.c_uint16),
        ("value", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
    )


class _Place(ctypes.Structure):
    """Dl_info of dladdr(3)."""

    _fields_ = (
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("symbol", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


class Call:
    """The place where a library keeps the address of a function that it calls. Made by `find`."""

    def __init__(self, *, place: int, found: int, address: int) -> None:
        self._place: Final = place
        self._found: Final = found
        self.address: Final = address
        """The function itself, for who calls it in the library's stead."""

    @classmethod
    def find(cls, library: ctypes.CDLL, name: str) -> Self:
        """Find the place. Raises LookupError where there is none, or none that can be trusted."""
        kinds = _KINDS.get(platform.machine()) if sys.maxsize > 1 << 32 else None
        if kinds is None or not hasattr(ctypes.CDLL(None), "dlinfo"):
            raise LookupError(f"how libraries call each other is not known for {platform.machine()}")
        loaded = _link_map(library)
        function = getattr(library, name, None)
        address = ctypes.cast(function, ctypes.c_void_p).value or 0 if function is not None else 0
        for place in _places(loaded, name.encode(), kinds):
            found = ctypes.c_uint64.from_address(place).value
            # Before the first call it leads back into the library, which then asks the linker.
            if library_of(found) in {library_of(address), library_of(loaded.dynamic)}:
                return cls(place=place, found=found, address=address)
        raise LookupError(f"{library_of(loaded.dynamic)} does not call {name}")

    def replace(self, function: int) -> None:
        """Have the library call what is at this address. Raises OSError where the system forbids it."""
        self._write(function)

    def restore(self) -> None:
        """Have it call again what it called before. Raises as `replace` does."""
        self._write(self._found)

    def _write(self, address: int) -> None:
        # Past the protection of the page (proc(5), /proc/PID/mem): many libraries have their table made read-only.
        with Path("/proc/self/mem").open("r+b", buffering=0) as memory:
            os.pwrite(memory.fileno(), address.to_bytes(8, sys.byteorder), self._place)


def library_of(address: int) -> str | None:
    """Name the file of the library that an address of this process belongs to."""
    place = _Place()
    if not ctypes.CDLL(None).dladdr(ctypes.c_void_p(address), ctypes.byref(place)):
        return None
    return os.path.realpath(os.fsdecode(place.file))


def _link_map(library: ctypes.CDLL) -> _LinkMap:
    found = ctypes.POINTER(_LinkMap)()
    if ctypes.CDLL(None).dlinfo(ctypes.c_void_p(library._handle), _LINK_MAP, ctypes.byref(found)):  # noqa: SLF001 - ctypes names it nowhere else
        raise LookupError(f"{library} can't be looked into")
    return found.contents


def _places(loaded: _LinkMap, name: bytes, kinds: frozenset[int]) -> Iterator[int]:
    table: dict[int, int] = {}
    place = loaded.dynamic
    while (entry := _Dynamic.from_address(place)).tag != _END:
        table[entry.tag] = entry.value
        place += ctypes.sizeof(_Dynamic)

    def absolute(tag: int) -> int:
        # The GNU C library has made these absolute, others have not.
        value = table.get(tag, 0)
        return value if value >= loaded.base else loaded.base + value

    for tag, size in ((_CALLS, _SIZE_OF_CALLS), (_RELOCATIONS, _SIZE_OF_RELOCATIONS)):
        start = absolute(tag)
        for at in range(start, start + table.get(size, 0), ctypes.sizeof(_Relocation)):
            relocation = _Relocation.from_address(at)
            if relocation.info & 0xFFFFFFFF in kinds:
                symbol = _Symbol.from_address(absolute(_SYMBOLS) + (relocation.info >> 32) * ctypes.sizeof(_Symbol))
                if ctypes.string_at(absolute(_STRINGS) + symbol.name) == name:
                    yield loaded.base + relocation.offset
