"""Draws single support messages with their correct ticket.

Input: scenarios and pools (deployments/sample/phrases.py) and a seeded random generator.
Output: `Row` objects whose messages are far enough from each other. Not run by itself; see
deployments/sample/generate.py.
"""

import json
import re
from dataclasses import dataclass, field
from random import Random

from deployments.sample.phrases import PRODUCTS, Pools, Scenario

Shingles = frozenset[tuple[str, ...]]

MIN_WORDS, MAX_WORDS = 12, 60
# Kept below the promised 0.6 so that a sentence with personal data, added later, cannot cross it.
MAX_OVERLAP = 0.55
MAX_GOLDEN_OVERLAP = 0.45
MAX_TRIES = 400

ORDER_SHARE = {
    "billing": 0.6,
    "delivery": 0.7,
    "returns": 0.6,
    "defect": 0.45,
    "account": 0.12,
    "question": 0.1,
}
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
NUMBERS = ("two", "three", "four", "five", "six", "seven")
PRICES = ("19", "24.90", "35", "39.95", "48", "59", "64.50", "79", "88", "99.90", "119", "149")
PRICE_FORMS = ("{} euros", "{} EUR", "€{}", "{} euro")
ORDER_LETTERS = "ABCDEK"
ORDER_FORMS = ("{l}-{d}",) * 5 + ("{l}{d}", "#{l}{d}", "#{l}-{d}", "{k}-{d}", "{k}{d}", "{l} {d}")
PART_SHARES = {
    "short": {"opening": 0.2, "detail": 0.3, "filler": 0.1, "distractor": 0.0, "closing": 0.2},
    "medium": {"opening": 0.5, "detail": 0.4, "filler": 0.2, "distractor": 0.15, "closing": 0.35},
    "long": {"opening": 0.8, "detail": 0.8, "filler": 0.6, "distractor": 0.4, "closing": 0.6},
}


@dataclass
class Row:
    """One message with its ticket; `kind` and `detail` are set when dirt is planted."""

    message: str
    ticket: dict[str, str | None]
    scenario: str
    kind: str = ""
    detail: dict[str, object] = field(default_factory=dict)
    answer: str | None = None
    source: "Row | None" = None
    file: str = ""
    line: int = 0

    def answer_text(self) -> str:
        """The ticket as it is written, unless a planted answer takes its place."""
        return ticket_json(self.ticket) if self.answer is None else self.answer


@dataclass
class Voice:
    """Which pools to write from ("train" or "golden") and the randomness to do it with."""

    pools: Pools
    name: str
    rng: Random

    def pick(self, pool: str) -> str:
        return self.rng.choice(self.pools[f"{self.name}.{pool}"])

    def chance(self, share: float) -> bool:
        return self.rng.random() < share


def ticket_json(ticket: dict[str, str | None]) -> str:
    """The one way a ticket is written."""
    return json.dumps(ticket, ensure_ascii=False, separators=(", ", ": "))


def shingles(text: str, split_on_space: bool = False) -> Shingles:
    """Word 3-grams of the lower-cased text."""
    low = text.lower()
    words = low.split() if split_on_space else re.findall(r"[^\W_]+", low)
    return frozenset(zip(words, words[1:], words[2:], strict=False))


def jaccard(left: Shingles, right: Shingles) -> float:
    """Shared part of two shingle sets."""
    union = len(left | right)
    return len(left & right) / union if union else 0.0


def text_overlap(left: str, right: str) -> float:
    """The lower Jaccard of the two usual ways to cut words, so that either reader sees it."""
    return min(jaccard(shingles(left, s), shingles(right, s)) for s in (False, True))


def _mention(product: str, rng: Random) -> str:
    brand, noun = product.split()
    forms = (product, f"{brand} {noun.lower()}", product.lower(), noun.lower(), brand)
    return rng.choices(forms, weights=(42, 10, 10, 28, 10))[0]


def _order_id(rng: Random) -> tuple[str, str]:
    letter, digits = rng.choice(ORDER_LETTERS), str(rng.randrange(10000, 100000))
    written = rng.choice(ORDER_FORMS).format(l=letter, k=letter.lower(), d=digits)
    return f"{letter}-{digits}", written


def _product_for(scenario: Scenario, text: str, voice: Voice) -> str | None:
    slots = ("{p}", "{thing}", "{order}") if scenario.none_word else ("{p}",)
    if not scenario.products or not any(slot in text for slot in slots):
        return None
    optional = scenario.none_word and "{p}" not in text
    if optional and voice.chance(0.35):
        return None
    return voice.rng.choice(scenario.products)


def _order_phrase(text: str, written: str, mention: str, voice: Voice) -> str:
    phrase = voice.pick("order_np" if written else "order_np_none").format(o=written)
    if not mention or "{p}" in text or "{thing}" in text:
        return phrase
    link = "with the" if voice.name == "train" else "containing the"
    return f"{phrase} {link} {mention}"


def _thing(mention: str, scenario: Scenario, voice: Voice) -> str:
    if mention:
        return f"{voice.rng.choice(('the', 'my'))} {mention}"
    return voice.pick("purchase_none" if scenario.none_word == "purchase" else "thing_none")


def _other_product(rng: Random, *taken: str) -> str:
    return rng.choice([name for name in PRODUCTS if name not in taken])


def _slots(
    scenario: Scenario, text: str, product: str | None, written: str, voice: Voice
) -> dict[str, str]:
    rng = voice.rng
    mention = _mention(product, rng) if product else ""
    return {
        "p": mention,
        "thing": _thing(mention, scenario, voice),
        "order": _order_phrase(text, written, mention, voice),
        "product": product or "",
        "q": _other_product(rng, product or ""),
        "day": rng.choice(DAYS),
        "n": rng.choice(NUMBERS),
        "eur": rng.choice(PRICE_FORMS).format(rng.choice(PRICES)),
    }


def _distractor(category: str, voice: Voice, slots: dict[str, str]) -> str:
    pool = [line.split("|") for line in voice.pools[f"{voice.name}.distractors"]]
    fitting = [text for banned, text in pool if category not in banned.split(",")]
    # A wrong item already named by the core must not come back as one that is beside the point.
    other = _other_product(voice.rng, slots["product"], slots["q"])
    return voice.rng.choice(fitting).format(q=other)


def _finish(part: str, last: bool) -> str:
    part = part[:1].upper() + part[1:]
    return part if last or part[-1] in ".,!?)]" else part + "."


def _join(parts: list[str], voice: Voice) -> str:
    parts = [part for part in parts if part]
    text = " ".join(_finish(part, i == len(parts) - 1) for i, part in enumerate(parts))
    return text.lower() if voice.chance(0.13) else text


def _typo(text: str, product_words: set[str], rng: Random) -> str:
    words = text.split(" ")
    plain = [len(w) > 4 and w.isalpha() and w.lower() not in product_words for w in words]
    spots = [i for i, usable in enumerate(plain) if usable]
    if not spots:
        return text
    spot = rng.choice(spots)
    word, cut = words[spot], rng.randrange(1, len(words[spot]) - 2)
    swapped = word[:cut] + word[cut + 1] + word[cut] + word[cut + 2 :]
    words[spot] = rng.choice((swapped, word[:cut] + word[cut + 1 :]))
    return " ".join(words)


PRODUCT_WORDS = {word.lower() for name in PRODUCTS for word in name.split()}


@dataclass
class _Draft:
    """The choices of one message that its parts and its ticket share."""

    product: str | None
    order_id: str | None
    written: str
    slots: dict[str, str]


def _draft(scenario: Scenario, core: str, voice: Voice) -> _Draft:
    product = _product_for(scenario, core, voice)
    has_order = voice.chance(ORDER_SHARE[scenario.category])
    order_id, written = _order_id(voice.rng) if has_order else (None, "")
    return _Draft(product, order_id, written, _slots(scenario, core, product, written, voice))


def _extras(
    scenario: Scenario, core: str, draft: _Draft, share: dict[str, float], voice: Voice
) -> list[str]:
    extra = []
    if voice.chance(share["filler"]):
        extra.append(voice.pick("fillers"))
    if voice.chance(share["distractor"]):
        extra.append(_distractor(scenario.category, voice, draft.slots))
    if draft.written and "{order}" not in core:
        extra.append(voice.pick("order").format(o=draft.written))
    return extra


def _parts(scenario: Scenario, core: str, draft: _Draft, urgency: str, voice: Voice) -> list[str]:
    style = voice.rng.choices(tuple(PART_SHARES), weights=(35, 45, 20))[0]
    share = PART_SHARES[style]
    main = [core.format(**draft.slots)]
    if voice.chance(share["detail"]):
        main.append(_detail(scenario, voice).format(**draft.slots))
    extra = _extras(scenario, core, draft, share, voice)
    body = _arrange(main, extra, _cue(scenario, urgency, voice), voice)
    opening = voice.pick("openings") if voice.chance(share["opening"]) else ""
    closing = voice.pick("closings") if voice.chance(share["closing"]) else ""
    return [opening, *body, closing]


def _detail(scenario: Scenario, voice: Voice) -> str:
    # Golden rows have no detail sentences of their own: a filler of their pool stands in.
    if voice.name == "golden":
        return voice.pick("fillers")
    return voice.rng.choice(scenario.details)


def _cue(scenario: Scenario, urgency: str, voice: Voice) -> str:
    # A dangerous scenario is a cue by itself, so it needs no words of haste.
    if urgency == "normal" or (scenario.urgency and voice.chance(0.5)):
        return ""
    return voice.pick(urgency)


def _arrange(main: list[str], extra: list[str], cue: str, voice: Voice) -> list[str]:
    voice.rng.shuffle(extra)
    if not cue:
        lead = [extra.pop()] if extra and voice.chance(0.25) else []
        return [*lead, *main, *extra]
    if voice.chance(0.2):
        return [cue, *main, *extra]
    extra.insert(voice.rng.randrange(len(extra) + 1), cue)
    return [*main, *extra]


def _summary(scenario: Scenario, product: str | None) -> str:
    noun = product.split()[1].lower() if product else "parcel"
    text = scenario.summary.format(noun=noun)
    return text[:1].upper() + text[1:]


def draw(scenario: Scenario, core: str, urgency: str, voice: Voice) -> Row:
    """One message that states `core` with the given urgency."""
    urgency = scenario.urgency or urgency
    draft = _draft(scenario, core, voice)
    parts = _parts(scenario, core, draft, urgency, voice)
    message = _join(list(dict.fromkeys(parts)), voice)
    if voice.chance(0.14):
        message = _typo(message, PRODUCT_WORDS, voice.rng)
    ticket = {
        "category": scenario.category,
        "product": draft.product,
        "urgency": urgency,
        "order_id": draft.order_id,
        "summary": _summary(scenario, draft.product),
    }
    return Row(message, ticket, scenario.key)


class Gate:
    """Lets a message through only if it is far from all before it and from the golden rows."""

    def __init__(self, golden: list[Row]) -> None:
        self.golden = [shingles(row.message) for row in golden]
        self.seen: list[Shingles] = []

    def admits(self, message: str) -> bool:
        if not MIN_WORDS <= len(message.split()) <= MAX_WORDS:
            return False
        new = shingles(message)
        if any(jaccard(new, old) >= MAX_GOLDEN_OVERLAP for old in self.golden):
            return False
        if any(jaccard(new, old) >= MAX_OVERLAP for old in self.seen):
            return False
        self.seen.append(new)
        return True


def draw_admitted(scenario: Scenario, core: str, urgency: str, voice: Voice, gate: Gate) -> Row:
    """Draws until the gate admits the message."""
    for _ in range(MAX_TRIES):
        row = draw(scenario, core, urgency, voice)
        if gate.admits(row.message):
            return row
    raise RuntimeError(f"no new message left for {scenario.key}: {core}")
