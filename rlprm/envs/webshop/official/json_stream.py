"""Reading large JSON files piece by piece: the elements of one array, or the members of one object."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from rlprm.errors import DataError

__all__ = ["elements", "members"]

_CHUNK = 1 << 20  # characters
_LARGEST = 1 << 24  # characters of an element; WebShop's have some thousands
_WHITE_SPACE = " \t\n\r"
_DELIMITERS = frozenset(_WHITE_SPACE + ",:]}")
# How near to the window's end an error may come of that end: "-Infinity" or "\ud83d\ude00" is cut there.
_NEAR = 16
_EXPONENT = 2  # characters of a number that may be left over where it is cut, "e+"


def elements(path: str | Path, *, chunk: int = _CHUNK) -> Iterator[Any]:
    """Read the elements of a JSON file that holds one array, one at a time.

    Memory is bounded by the largest element (and a few chunks), also where the file is damaged.

    Args:
        path: UTF-8, with a byte order mark or without.
        chunk: Characters to read at once.

    Raises:
        DataError: where the file is not such an array; says at which element, counted from 1, and at which
            character (or byte, where it is not UTF-8), counted from 0.
    """
    with Path(path).open(encoding="utf-8-sig", newline="") as file:
        reader = _Reader(file, str(path), chunk)
        reader.expect("[")
        if reader.peek() != "]":
            yield reader.element()
            while reader.peek() == ",":
                reader.expect(",")
                yield reader.element()
        reader.expect("]")
        reader.expect("")


def members(path: str | Path, *, chunk: int = _CHUNK) -> Iterator[tuple[str, Any]]:
    """Read keys and values of a JSON file that holds one object, one at a time.

    Args:
        path: UTF-8, with a byte order mark or without.
        chunk: Characters to read at once.

    Raises:
        DataError: where the file is not such an object; says where as :func:`elements` does.
    """
    with Path(path).open(encoding="utf-8-sig", newline="") as file:
        reader = _Reader(file, str(path), chunk)
        reader.expect("{")
        if reader.peek() != "}":
            yield reader.member()
            while reader.peek() == ",":
                reader.expect(",")
                yield reader.member()
        reader.expect("}")
        reader.expect("")


class _Reader:
    """A window on a file that moves on as values are read."""

    def __init__(self, file: TextIO, name: str, chunk: int) -> None:
        self._file, self._name, self._chunk = file, name, chunk
        self._window, self._at, self._ended = "", 0, False
        self._before = 0  # characters of the file before the window
        self._done = 0  # elements that were read
        self._decode = json.JSONDecoder().raw_decode

    def peek(self) -> str:
        """Return the next character that is not white space, "" at the end."""
        while True:
            while self._at < len(self._window) and self._window[self._at] in _WHITE_SPACE:
                self._at += 1
            if self._at < len(self._window):
                return self._window[self._at]
            if not self._more():
                return ""

    def expect(self, character: str) -> None:
        """Move past a character; "" is the end of the file."""
        following = self.peek()
        if following != character:
            raise self._broken(
                f"expected {character or 'its end'!r}, got {following or 'its end'!r}", self._at
            )
        self._at += len(character)

    def element(self) -> Any:
        """Read an element of the array."""
        value = self._value()
        self._done += 1
        return value

    def member(self) -> tuple[str, Any]:
        """Read a key and its value."""
        if self.peek() != '"':
            raise self._broken(f"expected a key, got {self.peek() or 'its end'!r}", self._at)
        key = self._value()
        self.expect(":")
        return key, self.element()

    def _value(self) -> Any:
        self.peek()
        wanted = self._chunk
        while True:
            try:
                value, end = self._decode(self._window, self._at)
            except json.JSONDecodeError as error:
                broken = self._broken(error.msg, error.pos)
                if not self._may_be_cut(error) or not self._more(wanted):
                    raise broken from error
            except (ValueError, RecursionError) as error:  # a number too long for Python; too deep
                raise self._broken(str(error), self._at) from error
            else:
                length = end - self._at
                left = self._window[end : end + _EXPONENT + 1]
                if len(left) > _EXPONENT or left[:1] in _DELIMITERS or not self._more(wanted):
                    self._at += length
                    return value
            wanted *= 2  # ever more is read, so that this stays linear

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        """Return whether the value may go on behind the window; an error elsewhere is one of the file."""
        return error.msg.startswith("Unterminated string") or error.pos >= len(self._window) - _NEAR

    def _more(self, wanted: int = 0) -> bool:
        """Drop what was read and add to the window; False at the end of the file."""
        if len(self._window) - self._at > _LARGEST:
            raise self._broken(f"no end within {_LARGEST} characters", self._at)
        try:
            read = "" if self._ended else self._file.read(max(wanted, self._chunk))
        except UnicodeDecodeError as error:
            byte = self._file.buffer.tell() - len(error.object) + error.start
            where = f"byte {byte}, behind element {self._done}"
            raise DataError(f"{self._name} is not UTF-8: {where}: {error.reason}") from error
        self._ended = not read
        self._before += self._at
        self._window, self._at = self._window[self._at :] + read, 0
        return not self._ended

    def _broken(self, what: str, place: int) -> DataError:
        where = f"element {self._done + 1}, char {self._before + place}"
        return DataError(f"{self._name} is not the JSON it should be: {where}: {what}")
