"""Plants known dirt into the raw rows of the sample deployment.

Input: clean rows and a seeded random generator. Output: the same rows with some of them altered,
plus copies that should be removed; each planted row carries its kind and detail for the key.
Not run by itself; see deployments/sample/generate.py.
"""

import json
import re
from random import Random

from deployments.sample.drawing import MAX_WORDS, Row, text_overlap
from deployments.sample.phrases import CATEGORIES, PRODUCTS, URGENCIES, Pools

# Changed in place; copies (duplicates and leaks) are counted apart because they add rows.
ALTERED = {
    "wrong_label": 45,
    "pii": 130,
    "empty_answer": 18,
    "truncated_answer": 22,
    "broken_row": 18,
    "gibberish": 22,
}
COPIED = {"exact_duplicate": 75, "near_duplicate": 75, "golden_leak": 22}
MIN_NEAR_OVERLAP = 0.75

BRANDS = {name.split()[0] for name in PRODUCTS}
WORD_SWAPS = (
    ("please", "kindly"),
    ("thanks", "thanx"),
    ("hello", "hallo"),
    ("nothing", "nada"),
    ("maybe", "perhaps"),
    ("without", "w/o"),
    ("because", "since"),
    ("although", "though"),
    ("cannot", "can't"),
    ("found", "discovered"),
    ("shows", "displays"),
    ("again", "anew"),
)
ADDED_FRONT = ("Well, ", "Honestly, ", "So, ", "Again: ", "Ok, ", "Okay so, ")
ADDED_BACK = (" Thx", " Please.", " Really.", " Ok?", " Bye bye", " Thank you kindly.")

PHONES = (
    "+1 202-555-01{:02d}",
    "(415) 555-01{:02d}",
    "+44 20 7946 09{:02d}",
    "+49 30 231250{:02d}",
)
# Published test numbers of the card schemes and sample accounts of the IBAN registry.
CARDS = (
    "4111111111111111",
    "4242424242424242",
    "4012888888881881",
    "5555555555554444",
    "5105105105105100",
    "5200828282828210",
    "6011111111111117",
    "4000056655665556",
)
IBANS = (
    "GB29 NWBK 6016 1331 9268 19",
    "DE89 3704 0044 0532 0130 00",
    "FR14 2004 1010 0505 0001 3M02 606",
    "NL91 ABNA 0417 1643 00",
    "ES91 2100 0418 4502 0005 1332",
    "AT61 1904 3002 3457 3201",
    "BE68 5390 0754 7034",
    "IE29 AIBK 9311 5212 3456 78",
    "SE45 5000 0000 0583 9825 7466",
    "PL61 1090 1014 0000 0712 1981 2874",
)
MAIL_HOSTS = ("example.com", "example.org", "example.net")
ROWS_OF_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def _other(values: tuple[str, ...], value: str | None, rng: Random) -> str:
    return rng.choice([v for v in values if v != value])


def _wrong_label(row: Row, rng: Random) -> None:
    field = rng.choice(("category", "urgency", "product"))
    pools = {"category": CATEGORIES, "urgency": URGENCIES, "product": PRODUCTS}
    right = row.ticket[field]
    wrong = _other(pools[field], right, rng)
    row.ticket[field] = wrong
    row.detail = {"field": field, "right": right, "wrong": wrong}


def _name(pools: Pools, rng: Random) -> str:
    return f"{rng.choice(pools['pii.first_names'])} {rng.choice(pools['pii.last_names'])}"


def _email(name: str, rng: Random) -> str:
    first, last = name.lower().replace("ö", "o").split()
    local = rng.choice(
        (f"{first}.{last}", f"{first[0]}.{last}", f"{first}{last}", f"{last}.{first}")
    )
    number = rng.choice(("", "", str(rng.randrange(2, 99))))
    return f"{local}{number}@{rng.choice(MAIL_HOSTS)}"


def _card(rng: Random) -> str:
    number = rng.choice(CARDS)
    gap = rng.choice(("", " ", "-"))
    return gap.join(number[i : i + 4] for i in range(0, 16, 4))


def _iban(rng: Random) -> str:
    iban = rng.choice(IBANS)
    return iban if rng.random() < 0.6 else iban.replace(" ", "")


def _personal_value(entity: str, name: str, rng: Random) -> str:
    if entity == "EMAIL_ADDRESS":
        return _email(name, rng)
    if entity == "PHONE_NUMBER":
        return rng.choice(PHONES).format(rng.randrange(10, 100))
    return _card(rng) if entity == "CREDIT_CARD" else _iban(rng)


def _with_stop(text: str) -> str:
    return text if text[-1] in ".,!?)]" else text + "."


def _personal_message(row: Row, pools: Pools, rng: Random) -> str:
    name = _name(pools, rng)
    found = {"PERSON": [name]}
    entities = ("EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE")
    chosen = rng.choices(entities, weights=(4, 4, 3, 3))[0]
    found[chosen] = [_personal_value(chosen, name, rng)]
    extra = rng.choice(pools[f"pii.{chosen}"]).format(**{chosen: found[chosen][0]})
    person = rng.choice(pools["pii.person"]).format(PERSON=name)
    row.detail = dict(found)
    if person.startswith(("My name", "This is", "I am")):
        return f"{person} {_with_stop(row.message)} {extra}"
    return f"{_with_stop(row.message)} {_with_stop(extra)} {person}"


def _add_personal_data(row: Row, pools: Pools, rng: Random) -> None:
    row.message = _personal_message(row, pools, rng)


def _truncate(row: Row, rng: Random) -> None:
    full = row.answer_text()
    row.answer = full[: rng.randrange(len(full) // 4, len(full) - 4)].rstrip()
    row.detail = {"full_length": len(full)}


def _mash(rng: Random) -> str:
    keys = rng.choice((*ROWS_OF_KEYS, "abcdefghijklmnopqrstuvwxyz"))
    return "".join(rng.choice(keys) for _ in range(rng.randrange(2, 11)))


def _gibberish(row: Row, rng: Random) -> None:
    row.message = " ".join(_mash(rng) for _ in range(rng.randrange(12, 28)))
    row.detail = {"tokens": len(row.message.split())}


def _alter(row: Row, kind: str, pools: Pools, rng: Random) -> None:
    row.kind = kind
    if kind == "wrong_label":
        _wrong_label(row, rng)
    elif kind == "pii":
        _add_personal_data(row, pools, rng)
    elif kind == "truncated_answer":
        _truncate(row, rng)
    elif kind == "gibberish":
        _gibberish(row, rng)
    elif kind == "empty_answer":
        row.answer = ""


def _takes(row: Row, kind: str) -> bool:
    return kind != "pii" or len(row.message.split()) <= MAX_WORDS - 20


def alter_rows(rows: list[Row], pools: Pools, rng: Random) -> None:
    """Turns as many clean rows as ALTERED says into rows of each kind."""
    for kind, count in ALTERED.items():
        free = [row for row in rows if not row.kind and _takes(row, kind)]
        for row in rng.sample(free, count):
            _alter(row, kind, pools, rng)


def _same_but_for_case(message: str, rng: Random) -> tuple[str, str]:
    variant = rng.choice(("verbatim", "verbatim", "whitespace", "case"))
    if variant == "whitespace":
        return variant, rng.choice(("  ", " ")) + message.replace(" ", "  ", rng.randrange(1, 9))
    if variant == "case":
        changed = message.upper() if rng.random() < 0.3 else message.lower()
        return ("verbatim", message) if changed == message else (variant, changed)
    return variant, message


def _lower_start(message: str) -> str:
    first = message.split(" ")[0]
    return message if first == "I" or first in BRANDS else message[:1].lower() + message[1:]


def _edit(message: str, rng: Random) -> str:
    edit = rng.randrange(3)
    if edit == 0:
        return rng.choice(ADDED_FRONT) + _lower_start(message)
    if edit == 1:
        return _with_stop(message) + rng.choice(ADDED_BACK)
    old, new = rng.choice(WORD_SWAPS)
    return re.sub(rf"\b{old}\b", new, message, count=1, flags=re.IGNORECASE)


def nearly(message: str, rng: Random, at_least: float) -> str | None:
    """The message with one or two small changes, or None if it is too short to stay near."""
    for _ in range(30):
        changed = _edit(message, rng)
        if rng.random() < 0.5:
            changed = _edit(changed, rng)
        if len(changed.split()) > MAX_WORDS or changed.lower() == message.lower():
            continue
        if text_overlap(message, changed) >= at_least:
            return changed
    return None


def _copy(row: Row, message: str, kind: str, detail: dict[str, object]) -> Row:
    return Row(message, dict(row.ticket), row.scenario, kind, detail, source=row)


def exact_copies(rows: list[Row], rng: Random) -> list[Row]:
    """Copies that are equal apart from white space and case."""
    copies = []
    for row in rows:
        variant, message = _same_but_for_case(row.message, rng)
        copies.append(_copy(row, message, "exact_duplicate", {"variant": variant}))
    return copies


def near_copies(rows: list[Row], count: int, rng: Random) -> list[Row]:
    """Copies with a word or two changed, made from the first rows that allow it."""
    copies: list[Row] = []
    for row in rows:
        message = nearly(row.message, rng, MIN_NEAR_OVERLAP) if len(copies) < count else None
        if message is not None:
            overlap = round(text_overlap(row.message, message), 3)
            copies.append(_copy(row, message, "near_duplicate", {"jaccard": overlap}))
    return copies


def leak_copies(golden: list[Row], rng: Random) -> list[Row]:
    """Golden rows that slip into the raw files, every second one slightly changed."""
    copies = []
    for index, row in enumerate(golden):
        changed = nearly(row.message, rng, 0.65) if index % 2 else None
        message = changed or row.message
        detail: dict[str, object] = {"jaccard": round(text_overlap(row.message, message), 3)}
        copies.append(_copy(row, message, "golden_leak", detail))
    return copies


def break_json_line(record: dict[str, object], key: str, rng: Random) -> tuple[str, str]:
    """A broken form of a jsonl record whose answer sits under `key`, and the name of the form."""
    text = json.dumps(record, ensure_ascii=False)
    form = rng.choice(("invalid_json", "array", "missing_key", "wrong_type"))
    if form == "invalid_json":
        return form, text[: len(text) * 3 // 5]
    if form == "array":
        return form, json.dumps(list(record.values()), ensure_ascii=False)
    if form == "missing_key":
        return form, json.dumps({k: v for k, v in record.items() if k != key}, ensure_ascii=False)
    return form, json.dumps({**record, key: 17}, ensure_ascii=False)


def break_cells(cells: list[str], rng: Random) -> tuple[str, list[str]]:
    """A csv row with too few or too many cells, and the name of the form."""
    if rng.random() < 0.5:
        return "too_few_cells", cells[: rng.randrange(1, 3)]
    return "too_many_cells", [*cells, "x"]
