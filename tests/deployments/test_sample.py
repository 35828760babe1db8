"""The sample data is reproducible, balanced, and holds exactly the dirt that its key names."""

import csv
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from itertools import combinations
from pathlib import Path

from deployments.sample.drawing import jaccard, shingles, text_overlap
from deployments.sample.generate import generate
from deployments.sample.phrases import (
    CATEGORIES,
    PRODUCTS,
    TICKET_KEYS,
    URGENCIES,
    load_pools,
    load_scenarios,
)

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "deployments" / "sample"
KEY = ROOT / "tests" / "data" / "sample_key.jsonl"
RAW = ("human.csv", "production.jsonl", "synthetic.jsonl")

Pair = tuple[str, str]
Place = tuple[str, int]


def read_pair(file: str, line: str) -> Pair | None:
    """Message and answer of one physical line, or None if the record is broken."""
    if file.endswith(".csv"):
        cells = next(csv.reader([line]))
        return (cells[0], cells[1]) if len(cells) == 4 else None
    try:
        record = json.loads(line)
        if file == "synthetic.jsonl":
            pair = (record["prompt"], record["completion"])
        else:
            user, assistant = record["messages"]
            pair = (user["content"], assistant["content"])
    except (ValueError, KeyError, TypeError):
        return None
    return pair if all(isinstance(text, str) for text in pair) else None


@cache
def lines(file: str) -> list[str]:
    return (SAMPLE / file).read_text(encoding="utf-8").splitlines()


@cache
def key() -> dict[Place, dict[str, object]]:
    entries = [json.loads(line) for line in KEY.read_text(encoding="utf-8").splitlines()]
    return {(entry["file"], entry["line"]): entry for entry in entries}


@cache
def pairs() -> dict[Place, Pair | None]:
    found: dict[Place, Pair | None] = {}
    for file in RAW:
        for number, line in enumerate(lines(file), start=1):
            if (file, number) != ("human.csv", 1):
                found[file, number] = read_pair(file, line)
    return found


@cache
def golden() -> dict[str, Pair]:
    found = {}
    for line in lines("golden.jsonl"):
        pair = read_pair("golden.jsonl", line)
        assert pair is not None
        found[str(json.loads(line)["conversation_id"])] = pair
    return found


def planted(kind: str) -> Iterator[tuple[Place, dict[str, object]]]:
    """Place and detail of all rows of a kind."""
    for place, entry in key().items():
        detail = entry["detail"]
        if entry["kind"] == kind and isinstance(detail, dict):
            yield place, detail


def pair_at(place: Place) -> Pair:
    pair = pairs()[place]
    assert pair is not None, place
    return pair


def original(detail: dict[str, object]) -> Pair:
    file, _, number = str(detail["of"]).rpartition(":")
    return pair_at((file, int(number)))


def kind_of(place: Place) -> str:
    return str(key()[place]["kind"]) if place in key() else ""


def sound() -> list[Pair]:
    """Rows that are neither copies nor unreadable."""
    kept = ("", "pii", "wrong_label")
    return [pair_at(place) for place in pairs() if kind_of(place) in kept]


def check_ticket(answer: str) -> None:
    ticket = json.loads(answer)
    assert tuple(ticket) == TICKET_KEYS
    assert ticket["category"] in CATEGORIES
    assert ticket["urgency"] in URGENCIES
    assert ticket["product"] is None or ticket["product"] in PRODUCTS
    assert ticket["order_id"] is None or re.fullmatch(r"[A-Z]-\d{5}", ticket["order_id"])
    assert 4 <= len(ticket["summary"].split()) <= 9
    assert answer == json.dumps(ticket, ensure_ascii=False, separators=(", ", ": "))


def test_regenerating_gives_the_same_bytes(tmp_path: Path) -> None:
    generate(tmp_path, tmp_path / "key.jsonl")
    for file in (*RAW, "golden.jsonl"):
        assert (tmp_path / file).read_bytes() == (SAMPLE / file).read_bytes(), file
    assert (tmp_path / "key.jsonl").read_bytes() == KEY.read_bytes()


def test_counts() -> None:
    assert [len(lines(file)) for file in RAW] == [501, 600, 400]
    assert list(golden()) == [f"g-{number:03d}" for number in range(1, 201)]
    assert len({message for message, _ in golden().values()}) == 200


def test_kinds_are_planted_in_the_stated_numbers() -> None:
    counts = Counter(kind_of(place) for place in key())
    assert counts == {
        "exact_duplicate": 75,
        "near_duplicate": 75,
        "wrong_label": 45,
        "pii": 130,
        "empty_answer": 18,
        "truncated_answer": 22,
        "broken_row": 18,
        "gibberish": 22,
        "golden_leak": 22,
    }


def test_tickets_are_valid() -> None:
    for _, answer in [*sound(), *golden().values()]:
        check_ticket(answer)


def test_messages_are_filled_in_and_of_fair_length() -> None:
    texts = [message for message, _ in [*sound(), *golden().values()]]
    assert all(12 <= len(text.split()) <= 60 for text in texts)
    assert not any("{" in text or "}" in text for text in texts)
    assert 27 <= sum(len(text.split()) for text in texts) / len(texts) <= 34


def test_order_ids_can_be_read_from_the_message() -> None:
    for message, answer in [*sound(), *golden().values()]:
        written = re.findall(r"\b([a-ek])[- ]?(\d{5})\b", message.lower())
        wanted = json.loads(answer)["order_id"]
        assert {f"{a.upper()}-{b}" for a, b in written} == ({wanted} if wanted else set()), message


def test_products_can_be_read_from_the_message() -> None:
    wrong = [pair_at(place) for place, _ in planted("wrong_label")]
    for message, answer in [*(p for p in sound() if p not in wrong), *golden().values()]:
        product = json.loads(answer)["product"]
        assert product is None or any(w in message.lower() for w in product.lower().split())


def test_broken_rows_cannot_be_read_and_all_others_can() -> None:
    broken = {place for place, _ in planted("broken_row")}
    assert {place for place, pair in pairs().items() if pair is None} == broken


def test_exact_duplicates_differ_in_white_space_and_case_only() -> None:
    for place, detail in planted("exact_duplicate"):
        message, answer = pair_at(place)
        first, first_answer = original(detail)
        assert message.lower().split() == first.lower().split()
        assert answer == first_answer
        assert (message == first) == (detail["variant"] == "verbatim")


def test_near_duplicates_are_near() -> None:
    for place, detail in planted("near_duplicate"):
        message, answer = pair_at(place)
        first, first_answer = original(detail)
        assert message.lower() != first.lower()
        assert text_overlap(message, first) >= 0.75
        assert answer == first_answer


def test_wrong_labels_differ_in_the_named_field() -> None:
    for place, detail in planted("wrong_label"):
        ticket = json.loads(pair_at(place)[1])
        assert ticket[detail["field"]] == detail["wrong"] != detail["right"]


def luhn(number: str) -> bool:
    digits = [int(d) for d in reversed(re.sub(r"\D", "", number))]
    doubled = [d * 2 - 9 * (d > 4) for d in digits[1::2]]
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0


def iban_is_valid(iban: str) -> bool:
    text = iban.replace(" ", "")
    return int("".join(str(int(c, 36)) for c in text[4:] + text[:4])) % 97 == 1


def test_personal_data_is_in_the_row_and_well_formed() -> None:
    for place, detail in planted("pii"):
        assert "PERSON" in detail
        assert len(detail) == 2
        for values in detail.values():
            assert isinstance(values, list)
            assert all(value in pair_at(place)[0] for value in values)
        assert all(luhn(str(n)) for n in _values(detail, "CREDIT_CARD"))
        assert all(iban_is_valid(str(n)) for n in _values(detail, "IBAN_CODE"))


def _values(detail: dict[str, object], entity: str) -> list[object]:
    values = detail.get(entity, [])
    return values if isinstance(values, list) else []


def test_no_personal_data_elsewhere() -> None:
    pools = load_pools()
    names = set(pools["pii.first_names"]) | set(pools["pii.last_names"])
    others = [pair_at(p)[0] for p in pairs() if kind_of(p) in ("", "wrong_label")]
    for message in [*others, *(message for message, _ in golden().values())]:
        assert "@" not in message
        assert not re.search(r"\d{3}[ -]\d{3}", message)
        assert not names & set(re.findall(r"\w+", message))


def test_answers_are_empty_or_cut_where_stated() -> None:
    assert all(pair_at(place)[1] == "" for place, _ in planted("empty_answer"))
    for place, _ in planted("truncated_answer"):
        answer = pair_at(place)[1]
        assert answer.startswith('{"category"')
        assert not answer.endswith("}")


def test_gibberish_has_no_known_words() -> None:
    known = {w for message, _ in golden().values() for w in message.lower().split() if len(w) > 3}
    for place, _ in planted("gibberish"):
        message, answer = pair_at(place)
        assert len(message.split()) >= 12
        assert not known & set(message.split())
        check_ticket(answer)


def test_golden_leaks_match_their_golden_row() -> None:
    for place, detail in planted("golden_leak"):
        message, answer = pair_at(place)
        source, source_answer = golden()[str(detail["golden_id"])]
        assert text_overlap(message, source) >= 0.6
        assert answer == source_answer


def test_no_accidental_near_duplicates() -> None:
    for rows in (sound(), list(golden().values())):
        cut = [shingles(message) for message, _ in rows]
        assert max(jaccard(left, right) for left, right in combinations(cut, 2)) < 0.6


def test_no_accidental_golden_overlap() -> None:
    cut = [shingles(message) for message, _ in golden().values()]
    for message, _ in sound():
        mine = shingles(message)
        assert max(jaccard(mine, other) for other in cut) < 0.5


def test_golden_phrases_are_not_in_the_training_pools() -> None:
    scenarios, pools = load_scenarios(), load_pools()
    train = {line for s in scenarios for line in (*s.cores, *s.details)}
    train |= {line for name, pool in pools.items() if name.startswith("train") for line in pool}
    mine = {line for s in scenarios for line in s.golden}
    mine |= {line for name, pool in pools.items() if name.startswith("golden") for line in pool}
    assert not train & mine
    assert len(scenarios) >= 60


def test_categories_and_urgencies_are_well_represented() -> None:
    for rows in (sound(), list(golden().values())):
        tickets = [json.loads(answer) for _, answer in rows]
        categories = Counter(ticket["category"] for ticket in tickets)
        urgencies = Counter(ticket["urgency"] for ticket in tickets)
        assert min(categories[c] for c in CATEGORIES) >= 0.08 * len(rows)
        assert min(urgencies[u] for u in URGENCIES) >= 0.2 * len(rows)


def test_no_single_word_gives_a_category_away() -> None:
    totals: Counter[str] = Counter()
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for message, answer in sound():
        category = json.loads(answer)["category"]
        totals[category] += 1
        for word in set(re.findall(r"\w+", message.lower())):
            seen[word][category] += 1
    for word, counts in seen.items():
        for category, count in counts.items():
            telling = count / counts.total() >= 0.8
            assert not telling or count / totals[category] < 0.6, (word, category)


def test_groups_hold_one_to_four_rows() -> None:
    for file, field in (("production.jsonl", "conversation_id"), ("synthetic.jsonl", "seed_id")):
        found = re.findall(rf'"{field}": "([a-z]-\d+)"', "\n".join(lines(file)))
        assert 1 < max(Counter(found).values()) <= 4
