"""How assistants refuse and recite: patterns of what they say, sought in many answers at once.

The patterns are few and narrow: "I'm sorry, but I can't find your order" is an answer, "I'm sorry,
but I can't help with that." is none. A refusal is sought at the beginning of the answer, in the
first person, without an object of the trade and without a hand-over to colleagues; boilerplate at
the beginning of any clause. The patterns are English. The labelled sentences in
tests/tasks/clean/quality/test_boilerplate.py say what is meant; change the version with them.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

VERSION = 1

HEAD = 240  # characters in which an answer refuses, if it does
_START = r'(?:^|":\s?")[\s"“\'*]*'
_OPENING = (
    r"(?:(?:hello|hi|hey|dear|thank you|thanks)\b[^.!?\n]{0,60}[.!,?]\s+)?"
    r"(?:(?:i[’']m|i am|we[’']re|we are)(?: \w+)? sorry|(?:my )?apologies|sorry|unfortunately|"
    r"i (?:sincerely |do )?apologi[sz]e|i understand[^.!?\n]{0,80}|i appreciate[^.!?\n]{0,80}|no)?"
    r"(?: for [^.!?\n]{0,40}| about [^.!?\n]{0,40})?[\s,.;:!–—-]*(?:but |however,? |as such,? )?"
)
_CANNOT = (
    r"i(?: simply| really)?(?: (?:cannot|can ?not|can[’']?t|could not|couldn[’']t|won[’']t|"
    r"will not)"
    r"(?: in good conscience)?"
    r"|(?: am|[’']m)(?: sorry, but i[’']m)? (?:unable|not able|not going|not (?:allowed|permitted|"
    r"programmed|designed)) to|(?: am|[’']m) not comfortable|[’']d rather not|"
    r" do not feel comfortable"
    r"| don[’']t feel comfortable| must (?:respectfully |politely )?(?:decline|refuse) to)"
    r"(?: be able to)? "
)
_HELP = (
    r"(?:help|assist|helping|assisting|comply|complying|engage|engaging|participate|participating|"
    r"respond|continue|continuing|discussing|answering|providing|proceed|answer|fulfil|fulfill|fulfilling|complete|provide|do|discuss|"
    r"generate|create|write|produce)"
)
_IT = (
    r"(?: you)?(?: (?:with|to|in|on))?"
    r" (?:this|that|it|your|the|such|these|those)"
    r"(?: (?:particular|specific|kind of|type of|sort of))?"
    r"(?: (?:requests?|questions?|topics?|tasks?|prompts?|instructions?|conversation|content|"
    r"activit(?:y|ies)|information))?"
)
# The end of the matter: an object of the trade ("without your order number") does not follow.
_END = r"(?:\s*$|\s*[.!;,–—\"]|\s+(?:as|because|since|due to the nature)\b)"
_HARM = (
    r"(?:illegal|unlawful|harmful|unethical|immoral|hateful|sexually|sexual|explicit|violent|violence|"
    r"weapons?|explosives?|bombs?|hack(?:ing)?|malware|ransomware|phishing|hate speech|self-harm|"
    r"suicide|offensive|derogatory|discriminatory|racist|malicious|misinformation|disinformation|"
    r"copyrighted|plagiari[sz]\w+|bypass\w*|counterfeit\w*|stalk\w*|inappropriate)"
)
_AI = (
    r"(?:an? (?:responsible |helpful |virtual |text-based )?(?:(?:large )?language model|"
    r"(?:ai|artificial intelligence)(?:[ -]powered)?(?: language| chat)?"
    r" (?:model|assistant|chatbot|system|program)))"
)
_CLAUSE = (
    r'(?:^|":\s?"|[.!?:;…\n]["”\')]*\s*|[,;–—-] ?|'
    r"\b(?:but|because|since|and|that|so|however) )[*\s]*"
)

REFUSALS = (
    _START + _OPENING + _CANNOT + _HELP + _IT + _END,
    _START + _OPENING + _CANNOT + r"(?:help|assist|comply)(?: you)?(?: with)?" + _END,
    _START
    + _OPENING
    + _CANNOT
    + r"(?:help|assist|provide|providing|generate|generating|create|creating|write|writing|produce|"
    r"support|engage|promote|condone|encourage|participate|offer|discuss|fulfil|fulfill|give|share|"
    r"assisting|helping)\b[^.!?\n]{0,90}\b" + _HARM + r"\b",
    _START + _OPENING + r"(?:that|this)(?: is|[’']s) not something (?:that )?i"
    r"(?:[’']m| am)?(?: can| able to| willing to)(?: be able to)? "
    r"(?:help|assist|do|provide|discuss)",
    _START + _OPENING + r"i must (?:respectfully |politely )?(?:decline|refuse)"
    r"(?: (?:this|that|your|the) request)?" + _END,
    r"\bit (?:is|would be) (?:not (?:appropriate|ethical|right)|inappropriate|unethical)"
    r"(?: (?:or|and) \w+)? for me to\b",
    r"\b(?:goes|is) against my (?:programming|guidelines|ethical)\b",
    r"\bmy (?:programming|guidelines|ethical guidelines|safety guidelines|content policy)"
    r" (?:prevents?|prohibits?|forbids?|do(?:es)?(?: not|n[’']t) (?:allow|permit))\b",
    r"\bviolates? (?:openai|anthropic|google)[’']s (?:content|usage|use case)",
)
BOILERPLATE = (
    _CLAUSE + r"as " + _AI + r"(?:,? (?:developed|created|trained|made|designed) by \w+)?,?"
    r" (?:i|my|it[’']s|it is|we)\b",
    _CLAUSE + r"as an ai, (?:i|my|it[’']s|it is)\b",
    r"\bi(?:[’']m| am)(?: just| only| merely| simply)? "
    + _AI
    + r"(?:[,.;!)]|\s+(?:and|so|that|who|"
    r"without|trained|created|developed|designed|made|built|here)\b|\s*$)",
    r"\bi(?:[’']m| am)(?: just| only| merely| simply)? an ai(?:[.;!)]|,? (?:so|and) i\b"
    r"|, (?:i|not|which)\b"
    r"| (?:created|developed|trained|made|built) by\b| and (?:do|don|can|cannot|have)\b)",
    r"\bi(?:[’']m| am) (?:chatgpt|gpt-?\d)\b",
    r"\bi was (?:created|developed|trained|made|built) by "
    r"(?:openai|anthropic|google|meta|microsoft)\b",
    r"\bmy (?:knowledge|training)(?: data)?[ -]cut-?off\b",
    r"\bmy (?:knowledge|training)(?: data)?(?: only)? (?:ends|goes up to|goes until|extends|was "
    r"last updated|is limited to|stops)\b[^.!?\n]{0,30}\b(?:19|20)\d\d\b",
    r"\b(?:as of|up to|until|since|after|beyond) my (?:last|latest|most recent)? ?"
    r"(?:knowledge|training)"
    r"(?: data)?(?: update| cut-?off)?\b",
    r"\b(?:as of|up to|until|since|after) my (?:last|latest|most recent) update"
    r"(?: (?:in|on|of) (?:\w+ )?20\d\d|, (?:the|there|it)\b)",
    r"\bi (?:do not|don[’']t) have (?:access to )?(?:real-?\s?time|up-to-date|current) "
    r"(?:information|data|news|updates|internet access)"
    r"(?:[.,;]|\s+(?:on|about|so|and|or|beyond|after)\b)",
    r"\bi (?:do not|don[’']t|cannot|can[’']t)(?: have the ability to)? (?:browse|access|search) "
    r"the (?:internet|web)\b",
    r"\bi (?:do not|don[’']t) (?:have|hold|possess) (?:any )?personal "
    r"(?:opinions?|beliefs?|feelings|"
    r"experiences?|preferences?|emotions|views)\b",
    r"\bi (?:do not|don[’']t) (?:have|experience|possess) (?:feelings|emotions|consciousness)"
    r"(?:,| or| and) (?:feelings|emotions|consciousness|personal|thoughts|opinions|physical)",
    r"^\s*regenerate response\s*$",
)
# Of a shop or an office, and of people who hand over to colleagues. Assistants do not speak so.
_OF_THE_TRADE = (
    r"\bour (?:[\w-]+ ){0,3}(?:teams?|department|colleagues?|office|store|shop|branch|desk|form|"
    r"website|app|warehouse|lawyers?|doctors?|agents?|specialists?|terms)\b|\bwe\b[^.!?\n]{0,60}\b"
    r"(?:orders?|refunds?|shipping|stock|deliver\w*)\b|\b(?:transfer|connect|put|hand|forward|pass)"
    r"(?:ed|ing)? (?:you|this|it)\b|\bescalat\w+|\b(?:your|order|reference|account) number\b"
)


def refuses(answers: pa.Array) -> pa.Array:
    """Which answers refuse, as booleans."""
    heads = pc.utf8_slice_codeunits(pc.fill_null(answers, ""), 0, HEAD)
    return pc.and_not(_matches(heads, REFUSALS), _matches(heads, (_OF_THE_TRADE,)))


def recites(answers: pa.Array) -> pa.Array:
    """Which answers hold an assistant's boilerplate, as booleans."""
    return _matches(answers, BOILERPLATE)


def either(patterns: tuple[str, ...]) -> str:
    """One pattern for any of them."""
    return "|".join(f"(?:{pattern})" for pattern in patterns)


def _matches(texts: pa.Array, patterns: tuple[str, ...]) -> pa.Array:
    """RE2 searches in time linear in the text, whatever the pattern."""
    return pc.fill_null(pc.match_substring_regex(texts, either(patterns), ignore_case=True), False)
