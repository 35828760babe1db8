"""Damaged texts are mended, correct ones in any script are left as they are."""

import json
from typing import Any

import pytest
from ftfy.chardata import CHARMAP_ENCODINGS
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.clean.config import UnicodeConfig
from tasks.clean.rows import Rows
from tasks.clean.unicode import repair, repair_text, samples
from tasks.example import Example, Message, to_table

CORRECT = {
    "ascii": "Plain text, \"quoted\" & 'quoted', a <b>tag</b> &amp; an entity;\n\tindented.",
    "chinese": "您好，我的订单（编号：Ａ１２３）还没有到。请问什么时候能送达？“谢谢”——王先生。",
    "japanese": "注文したケトルが届きません。ﾊﾝｶｸとゼンカク、どちらも「正しい」です。",
    "korean": "안녕하세요. 주전자가 아직 도착하지 않았습니다.",
    "arabic": "مرحبًا، لم يصل طلبي بعد. هل يمكنكم مساعدتي؟ «شكرًا»",
    "hebrew": "שלום, ההזמנה שלי עדיין לא הגיעה. תודה!",
    "persian": "سلام، سفارش من هنوز نرسیده است؛ می‌خواهم بدانم چرا؟",
    "hindi": "नमस्ते, मेरा ऑर्डर अभी तक नहीं आया है। क्षमा कीजिए, कृपया मदद करें।",
    "russian": "Здравствуйте! Мой заказ № 5 ещё не пришёл — что делать? «Спасибо», ВГРС.",
    "greek": "Καλημέρα, η παραγγελία μου δεν έφτασε ακόμη· τι να κάνω;",
    "thai": "สวัสดีครับ กาต้มน้ำยังไม่มาส่ง",
    "vietnamese": "Xin chào, đơn hàng của tôi vẫn chưa đến. Làm ơn giúp tôi với!",
    "french": "« L’été à la plage », dit-elle… Ça coûte 5 € à Noël ; où est l’œuvre ? Voilà\u00a0!",
    "german": "Größe „M“ paßt nicht – schöne Grüße aus Köln, 20 °C.",
    "spanish": "¿Dónde está mi pedido? ¡Señor, aún no llegó!",
    "english": "It’s “quoted” – and so—naïve, café… 5 × 3 ≈ 15, £5 or 5 ½, ™ © ®",
    "emoji": "Family: 👨‍👩‍👧‍👦, flag: 🇨🇭, thumb: 👍🏽, heart: ❤️, pirate: 🏴‍☠️",
    "arrows": "(╯°□°)╯︵ ┻━┻ → ✓ ½ ² ½",
}
MENDED = [
    ("sÃ³", "só"),
    ("The cafÃ© is open", "The café is open"),
    ("Itâ€™s here", "It’s here"),
    ("voilÃ  le travail", "voilà le travail"),
    ("Ð¿Ñ€Ð¸Ð²ÐµÑ‚", "привет"),
    ("ï¬\x81ne", "fine"),
    ("ofﬁce", "office"),
    ("quote \x93this\x94", "quote “this”"),
    ("a\x00b\x07", "ab"),
    ("\ufeffbegin", "begin"),
    ("one\r\ntwo\rthree\u2028four", "one\ntwo\nthree\nfour"),
    ("\x1b[31mred\x1b[0m", "red"),
    ("e\u0301te\u0301", "été"),
]


def rows_of(*turns: tuple[str, str]) -> Rows:
    return Rows(
        to_table(
            Example(str(i), (Message("user", u), Message("assistant", a)), "human", str(i))
            for i, (u, a) in enumerate(turns)
        )
    )


def contents(rows: Rows) -> list[str]:
    texts: list[str] = rows.turns.contents.to_pylist()
    return texts


@pytest.mark.parametrize("text", CORRECT.values(), ids=CORRECT)
def test_correct_text_stays(text: str) -> None:
    rows = rows_of((text, text), ("x", json.dumps({text: [text]}, ensure_ascii=False)))
    mended, changed = repair(rows, UnicodeConfig())
    assert changed == 0
    assert mended.table.equals(rows.table)


@pytest.mark.parametrize(("damaged", "right"), MENDED)
def test_damaged_text_is_mended(damaged: str, right: str) -> None:
    mended, changed = repair(rows_of((damaged, "x"), ("x", damaged)), UnicodeConfig())
    assert contents(mended) == [right, "x", "x", right]
    assert changed == 2


@pytest.mark.parametrize("name", ["french", "german", "spanish", "vietnamese", "russian", "hindi"])
def test_utf8_read_as_latin_1_is_read_again(name: str) -> None:
    text = CORRECT[name]
    assert repair_text(text.encode().decode("latin-1")) == text


def test_a_row_counts_once_and_the_rest_of_it_stays() -> None:
    rows = rows_of(("clean", "clean"), ("cafÃ©", "cafÃ©"), ("cafÃ©", "clean"))
    mended, changed = repair(rows, UnicodeConfig())
    assert changed == 2
    assert contents(mended) == ["clean", "clean", "café", "café", "café", "clean"]
    assert mended.table.drop(["messages"]).equals(rows.table.drop(["messages"]))
    assert mended.table.schema.equals(rows.table.schema)
    assert samples(rows, mended, 2) == [("cafÃ©", "café")] * 2


def test_switched_off_and_empty() -> None:
    rows = rows_of(("cafÃ©", "x"))
    assert repair(rows, UnicodeConfig(enabled=False)) == (rows, 0)
    assert repair(rows_of(), UnicodeConfig())[1] == 0


def test_json_stays_json() -> None:
    """Neither a line separator nor a quote inside a string may break it."""
    damaged = '{"a": "cafÃ©\u2028“x”", "b": ["â€œyâ€\x9d", 1.50, null]}'
    mended = repair_text(damaged)
    assert json.loads(mended) == {"a": "café\u2028“x”", "b": ["“y”", 1.5, None]}
    assert "1.50" in mended


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a\x7f": 2}', "[" * 500 + "\x7f" + "]" * 500, '["\x7f' + "[" * 999]
)
def test_json_whose_structure_would_change_stays(text: str) -> None:
    mended = repair_text(text)
    assert mended.replace("\x7f", "") == text.replace("\x7f", "")
    assert mended == text or not text.startswith("{")


_SINGLE_BYTE = "".join(
    bytes([byte]).decode(encoding, errors="ignore")
    for encoding in CHARMAP_ENCODINGS
    for byte in range(128, 256)
)
_TEXTS = st.text(
    st.one_of(
        st.sampled_from(_SINGLE_BYTE),
        st.sampled_from("abcXYZ 0159.,;:?!\"'\\\n\r\t<&$°ÃÂâ€™\x80\x9d\ufffd\u0301\u200d\u2028"),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=30,
)


@settings(deadline=None)
@given(_TEXTS)
@example("Ã\u00a0")
def test_mending_twice_is_mending_once(text: str) -> None:
    once, _ = repair(rows_of((text, "x")), UnicodeConfig())
    again, changed = repair(once, UnicodeConfig())
    assert changed == 0
    assert again.table.equals(once.table)


@settings(deadline=None)
@given(_TEXTS)
def test_no_text_is_passed_over(text: str) -> None:
    """The search for suspects finds all that ftfy would change."""
    mended, _ = repair(rows_of((text, "x")), UnicodeConfig())
    assert contents(mended)[0] == repair_text(text)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=6,
)


def shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {"members": [shape(item) for item in value.values()]}
    return [shape(item) for item in value] if isinstance(value, list) else type(value)


@settings(deadline=None)
@given(st.lists(_JSON, max_size=3), st.booleans())
def test_json_keeps_its_structure(value: list[Any], escaped: bool) -> None:
    text = json.dumps(value, ensure_ascii=escaped)
    mended = json.loads(repair_text(text))
    assert shape(mended) == shape(value)
    if escaped:
        assert mended == value
