"""What is personal in the distinct texts of a chunk of rows, piece by piece."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tasks.clean.config import PiiConfig
from tasks.clean.pii.find import NAME_SCORE, Finder
from tasks.clean.pii.patterns import Found
from tasks.clean.pii.pieces import Piece, pieces_of

# Of meta, what says where a row came from.
_OURS = frozenset({"file", "line"})


class Scan:
    """What is personal in the distinct texts of a chunk."""

    def __init__(self, finder: Finder) -> None:
        self._finder = finder
        self._pieces: dict[str, list[Piece]] = {}  # of JSON texts: they are read once
        self._found: dict[tuple[str, bool], list[Found]] = {}

    def look(self, texts: Iterable[str], *, names: bool) -> None:
        """Look at these texts; ``names`` asks for names too, wherever that makes sense."""
        asked: dict[bool, list[str]] = {True: [], False: []}
        for text in texts:
            for piece in self.pieces(text):
                asked[names and piece.names].append(piece.text)
        for kind, pieces in asked.items():
            found = self._finder.find_all(pieces, names=kind)
            self._found.update(((text, kind), items) for text, items in found.items())

    def pieces(self, text: str) -> list[Piece]:
        if text not in self._pieces:
            pieces = pieces_of(text, _OURS)
            if len(pieces) == 1 and pieces[0].text is text:
                return pieces
            self._pieces[text] = pieces
        return self._pieces[text]

    def found(self, piece: Piece, *, names: bool = True) -> list[Found]:
        kinds = (True, False) if names and piece.names else (False,)
        items = next(filter(None, (self._found.get((piece.text, kind)) for kind in kinds)), [])
        if piece.is_value:
            # "Gift card balance is wrong": of an answer's short sentences the network makes people.
            items = [
                f for f in items if f.score != NAME_SCORE or " " in piece.text[f.start : f.end]
            ]
        return [*items, *piece.found]

    def holds_anything(self, text: str, *, names: bool = True) -> bool:
        return any(self.found(piece, names=names) for piece in self.pieces(text))


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
