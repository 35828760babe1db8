"""What is personal in the distinct texts of a chunk of rows, piece by piece."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from tasks.clean.config import PiiConfig
from tasks.clean.pii.find import NAME_SCORE, Finder
from tasks.clean.pii.patterns import Found
from tasks.clean.pii.pieces import Piece, argument_pieces, pieces_of

# A turn, the calls of one, or a row's meta; of each something else is looked at.
Kind = Literal["turn", "calls", "meta"]
# Of meta, what says where a row came from.
_OURS = frozenset({"file", "line"})


class Scan:
    """What is personal in the distinct texts of a chunk."""

    def __init__(self, finder: Finder) -> None:
        self._finder = finder
        # Of JSON texts: they are read once.
        self._pieces: dict[tuple[str, Kind], list[Piece]] = {}
        self._found: dict[tuple[str, bool], list[Found]] = {}

    def look(self, texts: Iterable[str], *, names: bool, kind: Kind = "turn") -> None:
        """Look at these texts; ``names`` asks for names too, wherever that makes sense."""
        asked: dict[bool, list[str]] = {True: [], False: []}
        for text in texts:
            for piece in self.pieces(text, kind):
                asked[names and piece.names].append(piece.text)
        for with_names, pieces in asked.items():
            found = self._finder.find_all(pieces, names=with_names)
            self._found.update(((text, with_names), items) for text, items in found.items())

    def pieces(self, text: str, kind: Kind = "turn") -> list[Piece]:
        if (text, kind) not in self._pieces:
            if kind == "calls":
                pieces = argument_pieces(text)
            else:
                pieces = pieces_of(text, _OURS if kind == "meta" else frozenset())
            if len(pieces) == 1 and pieces[0].text is text:
                return pieces
            self._pieces[text, kind] = pieces
        return self._pieces[text, kind]

    def found(self, piece: Piece, *, names: bool = True) -> list[Found]:
        kinds = (True, False) if names and piece.names else (False,)
        items = next(filter(None, (self._found.get((piece.text, kind)) for kind in kinds)), [])
        if piece.is_value:
            # "Gift card balance is wrong": of an answer's short sentences the network makes people.
            items = [
                f for f in items if f.score != NAME_SCORE or " " in piece.text[f.start : f.end]
            ]
        return [*items, *piece.found]

    def holds_anything(self, text: str, *, names: bool = True, kind: Kind = "turn") -> bool:
        return any(self.found(piece, names=names) for piece in self.pieces(text, kind))


def personal_spans(texts: Sequence[str], config: PiiConfig) -> list[list[tuple[int, int, str]]]:
    """(start, end, entity) of what is found in each text; a JSON value is given with its quotes."""
    scan = Scan(Finder(config))
    scan.look(texts, names=True)
    return [
        [
            (piece.start, piece.end, item.entity)
            if piece.is_value
            else (item.start, item.end, item.entity)
            for piece in scan.pieces(text)
            for item in scan.found(piece)
        ]
        for text in texts
    ]
