"""Prompts that are surely in none of the configured languages."""

import pyarrow as pa
import pytest

from tasks.clean.config import QualityConfig
from tasks.clean.quality.language import wrong_language
from tasks.errors import ConfigError

PROMPTS = {
    "en": "Hello, my kettle has not arrived yet and I would like to know where it is.",
    "de": "Guten Tag, mein Wasserkocher ist kaputt und ich möchte ihn gern zurückgeben.",
    "fr": "Bonjour, je n'ai toujours pas reçu ma commande, pouvez-vous m'aider ?",
    "ru": "Здравствуйте, мой заказ ещё не пришёл, подскажите, пожалуйста, где он?",
    "ja": "注文したケトルがまだ届きません。いつ届くか教えていただけますか。",
}


def found(prompts: list[str | None], *languages: str, least: float = 0.9) -> list[int]:
    config = QualityConfig(languages=languages, min_language_probability=least)
    return [f.index for f in wrong_language(pa.array(prompts, pa.large_string()), config)]


def test_without_languages_every_language_is_right() -> None:
    assert found([*PROMPTS.values()]) == []


@pytest.mark.parametrize("language", PROMPTS)
def test_only_the_others_are_wrong(language: str) -> None:
    expected = [i for i, other in enumerate(PROMPTS) if other != language]
    assert found([*PROMPTS.values()], language) == expected
    assert found([*PROMPTS.values()], *PROMPTS) == []


def test_the_detail_names_the_language_and_its_probability() -> None:
    prompts = pa.array([PROMPTS["de"]], pa.large_string())
    (finding,) = wrong_language(prompts, QualityConfig(languages=("en", "fr")))
    assert finding.reason == "wrong_language"
    assert finding.detail.startswith("de with probability 1.0")
    assert finding.detail.endswith("allowed: en, fr")


@pytest.mark.parametrize(
    "text",
    ["Wo ist er?", "", None, "12345 67890 12345 67890", "A-12345, B-67890, C-13579", "👍 " * 30],
)
def test_too_few_letters_are_not_judged(text: str | None) -> None:
    assert found([text], "en", least=0.01) == []


def test_random_letters_are_no_language() -> None:
    assert found(["wqttqq vxmmz vz enxlw tou vmcvxbzvx mcxbx fkhh qoipuqor hkhhddfsla"], "en") == []


def test_names_and_loan_words_do_not_make_a_language() -> None:
    prompts = [
        "My Doppelgänger bought a Dachshund calendar in Zürich, please refund it.",
        "I paid at Café Olé in Saint-Étienne and the déjà vu transfer shows twice.",
        "Where's my card? PIN: 4242. IBAN DE89 3704 0044 0532 0130 00.",
    ]
    assert found(prompts, "en") == []


def test_an_unknown_code_is_an_error_of_the_config() -> None:
    with pytest.raises(ConfigError, match="english is not known"):
        found([PROMPTS["en"]], "english")
