"""Reading large JSON files piece by piece: the elements of one array, or the members of one object."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from rlprm.errors import DataError

__all__ = ["elements", "members"]

_CHUNK = 1 << 20  # characters
_WHITE_SPACE = " \t\n\r"
_DELIMITERS = frozenset(_WHITE_SPACE + ",:]}")


def elements(path: str | Path, *, chunk: int = _CHUNK) -> Iterator[Any]:
    """Read the elements of a JSON file that holds one array, one at a time.

    Memory is bounded by the largest element (and a few chunks).

    Args:
        path: UTF-8.
        chunk: Characters to read at once.

    Raises:
        DataError: where the file is not such an array.
    """
    with Path(path).open(encoding="utf-8") as file:
        reader = _Reader(file, str(path), chunk)
        reader.expect("[")
        if reader.peek() != "]":
            yield reader.value()
            while reader.peek() == ",":
                reader.expect(",")
                yield reader.value()
        reader.expect("]")
        reader.expect("")


def members(path: str | Path, *, chunk: int = _CHUNK) -> Iterator[tuple[str, Any]]:
    """Read keys and values of a JSON file that holds one object, one at a time.

    Args:
        path: UTF-8.
        chunk: Characters to read at once.

    Raises:
        DataError: where the file is not such an object.
    """
    with Path(path).open(encoding="utf-8") as file:
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
        found = self.peek()
        if found != character:
            raise self._broken(f"expected {character or 'its end'!r}, got {found or 'its end'!r}")
        self._at += len(character)

    def value(self) -> Any:
        """Read a value."""
        self.peek()
        wanted = self._chunk
        while True:
            try:
                value, end = self._decode(self._window, self._at)
            except json.JSONDecodeError as error:
                # The value may go on behind the window; ever more is read, so that this stays linear.
                if not self._more(wanted):
                    raise self._broken(error.msg) from error
                wanted *= 2
                continue
            if self._window[end : end + 1] not in _DELIMITERS and self._more():
                continue  # a number may go on
            self._at = end
            return value

    def member(self) -> tuple[str, Any]:
        """Read a key and its value."""
        if self.peek() != '"':
            raise self._broken(f"expected a key, got {self.peek() or 'its end'!r}")
        key = self.value()
        self.expect(":")
        return key, self.value()

    def _more(self, wanted: int = 0) -> bool:
        """Drop what was read and add to the window; False at the end of the file."""
        read = "" if self._ended else self._file.read(max(wanted, self._chunk))
        self._ended = not read
        self._window, self._at = self._window[self._at :] + read, 0
        return not self._ended

    def _broken(self, what: str) -> DataError:
        return DataError(f"{self._name} is not the JSON it should be: {what}")
