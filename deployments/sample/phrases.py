"""Reads the phrasing pools of the sample deployment.

Input: scenarios.txt and phrases.txt beside this file. Output: the scenarios, the shared pools and
the fixed value sets of a ticket. Not run by itself; see deployments/sample/generate.py.
"""

from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent

CATEGORIES = ("billing", "delivery", "returns", "defect", "account", "question")
URGENCIES = ("low", "normal", "high")
PRODUCTS = (
    "Nimbus Router",
    "Halo Lamp",
    "Pulse Watch",
    "Tonic Headset",
    "Vista Monitor",
    "Orbit Speaker",
    "Quill Keyboard",
    "Brisk Kettle",
    "Lumen Camera",
    "Drift Vacuum",
    "Slate Tablet",
    "Volt Charger",
)
TICKET_KEYS = ("category", "product", "urgency", "order_id", "summary")

Pools = dict[str, list[str]]


@dataclass(frozen=True)
class Scenario:
    """One kind of customer problem and the sentences that state it."""

    key: str
    category: str
    products: tuple[str, ...]
    none_word: str
    urgency: str
    summary: str
    cores: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)
    golden: list[str] = field(default_factory=list)


def _products(cell: str) -> tuple[str, ...]:
    if cell == "all":
        return PRODUCTS
    return () if cell == "-" else tuple(name.strip() for name in cell.split(","))


def _header(line: str) -> Scenario:
    key, category, products, none_word, urgency, summary = [c.strip() for c in line.split("|")]
    return Scenario(key, category, _products(products), none_word, urgency, summary)


def load_scenarios(path: Path = HERE / "scenarios.txt") -> list[Scenario]:
    """All scenarios in file order."""
    scenarios: list[Scenario] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        mark, text = line[:2], line[2:]
        if mark == "= ":
            scenarios.append(_header(text))
        elif mark == "- ":
            scenarios[-1].cores.append(text)
        elif mark == "+ ":
            scenarios[-1].details.append(text)
        elif mark == "* ":
            scenarios[-1].golden.append(text)
    return scenarios


def load_pools(path: Path = HERE / "phrases.txt") -> Pools:
    """Shared phrases by pool name, such as "train.openings"."""
    pools: Pools = {}
    name = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("[") and line.endswith("]") and "{" not in line:
            name = line[1:-1]
            pools[name] = []
        elif line and not line.startswith("#"):
            pools[name].append(line)
    return pools
