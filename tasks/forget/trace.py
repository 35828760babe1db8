"""Reverse lineage: from a person, a text or an id to the artifacts, adapters and model versions.

Rows in their raw form are found by what they say. Their ids then lead to what cleaning redacted
and formatting turned into tokens, and the digests of those data sets to what was trained on them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tasks.forget.records import AdapterHit, ModelHit, Place, Traces, artifact_of, links_of
from tasks.forget.search import Found, is_searched, search
from tasks.objects import LocalStore, Store
from tasks.storage import MANIFEST, local_folder
from tasks.tombstones import Tombstones

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

# Version tag: the dates and requests after which a version should no longer have been trained so.
MARK = "trained_on_forgotten"
# Where rows still say what they said; everything else may have been redacted or rendered.
_RAW = ("ingest", "ingest-part", "synthetic", "golden")
_FIRST_ALIASES = ("champion", "challenger", "previous")


def trace(
    store: Store,
    client: MlflowClient,
    sought: Tombstones,
    known_links: Iterable[str] = (),
    name: str | None = None,
) -> Traces:
    """Find everything that holds what is sought, in the store, on this machine and in the registry.

    ``known_links`` are the ids of an earlier search for the same, whose rows may be erased by now.
    """
    found = Found()
    links = set(known_links)
    groups = _groups(key for key in store.keys_under("") if is_searched(key))
    search(store, groups["raw"], sought, found)
    for group in ("clean", "rest"):
        links |= links_of(found.places)
        search(store, groups[group], _with(sought, links), found)
    digests = {a for keys in groups.values() for key in keys if (a := artifact_of(key))}
    _search_machine(_with(sought, links), {a.rpartition("/")[2] for a in digests}, found)

    adapters = list(_adapters(client, found.places))
    models, untraceable = _models(client, store, sought.digest, found.places, adapters, name)
    return Traces(
        request=sought.digest,
        places=found.places,
        models=models,
        adapters=adapters,
        untraceable=untraceable,
        source_files=dict(sorted(found.source_files.items())),
        num_objects=found.num_objects,
        num_unread=dict(sorted(found.unread.items())),
    )


def _groups(keys: Iterable[str]) -> Mapping[str, list[str]]:
    """The keys in the order to search them: what gives ids before what only ids lead to."""
    groups: dict[str, list[str]] = {"raw": [], "clean": [], "rest": []}
    for key in keys:
        stage = key.partition("/")[0]
        groups["raw" if stage in _RAW else stage if stage in groups else "rest"].append(key)
    return groups


def _with(sought: Tombstones, links: set[str]) -> Tombstones:
    return Tombstones(sought.salt, sought.phrases, sought.ids | links)


def _search_machine(sought: Tombstones, digests: set[str], found: Found) -> None:
    """This machine's copies of artifacts, and its folder of runs.

    A copy of what the store has needs no second look: it holds what the original holds.
    """
    cache = LocalStore(local_folder() / "cache")
    hit: dict[str, list[Place]] = defaultdict(list)
    for place in found.places:
        if place.digest is not None:
            hit[place.digest].append(place)
    orphans = []
    for key in cache.keys_under(""):
        digest = key.partition("/")[0]
        if digest not in digests:
            orphans.append(key)
            continue
        found.places += [
            place.model_copy(
                update={"root": cache.root, "key": key, "stage": "local copy", "local": True}
            )
            for place in hit[digest]
            if place.key.endswith(f"/{key}")
        ]
    search(cache, orphans, sought, found, local=True)
    runs = LocalStore(local_folder() / "runs")
    search(runs, filter(is_searched, runs.keys_under("")), sought, found, local=True)


def _adapters(client: MlflowClient, places: Iterable[Place]) -> Iterator[AdapterHit]:
    """The training runs on formatted data sets whose train split holds a row."""
    experiments = [e.experiment_id for e in _all(client.search_experiments)]
    for digest, splits in _datasets(places, "format").items():
        if not splits["train"] or not experiments:
            continue
        wanted = f"tags.data_digest = '{digest}'"
        for run in _all(client.search_runs, experiments, wanted):
            yield AdapterHit(
                training_run_id=run.info.run_id,
                adapter_uri=run.data.tags.get("adapter_uri"),
                data_digest=digest,
            )


def _models(
    client: MlflowClient,
    store: Store,
    request: str,
    places: Iterable[Place],
    adapters: Iterable[AdapterHit],
    name: str | None,
) -> tuple[list[ModelHit], list[str]]:
    """Versions whose data holds a row, those in production first; and those nobody can tell of."""
    datasets = _datasets(places, "clean")
    runs = {adapter.training_run_id for adapter in adapters}
    hits, untraceable = [], []
    for version, aliases in _versions(client, name):
        digest = version.tags.get("data_digest")
        splits = datasets.get(digest, Counter())
        if version.run_id in runs:
            splits = splits | Counter(train=1)
        is_marked = request[:12] in version.tags.get(MARK, "")
        if splits or is_marked:
            hits.append(
                ModelHit(
                    name=version.name,
                    version=str(version.version),
                    aliases=aliases,
                    data_digest=digest,
                    num_by_split=dict(sorted(splits.items())),
                    is_marked=is_marked,
                )
            )
        elif digest is None or store.size(f"clean/{digest}/{MANIFEST}") is None:
            untraceable.append(f"{version.name} version {version.version}")
    return sorted(hits, key=_rank), untraceable


def _datasets(places: Iterable[Place], stage: str) -> dict[str | None, Counter[str]]:
    """Rows by split of each data set of a stage; a rejected row is in none of them."""
    found: dict[str | None, Counter[str]] = defaultdict(Counter)
    for place in places:
        if place.stage == stage:
            found[place.digest].update(row.split for row in place.rows if row.split)
    return found


def _versions(client: MlflowClient, name: str | None) -> Iterator[tuple[Any, list[str]]]:
    for model in _all(client.search_registered_models):
        if name not in (None, model.name):
            continue
        for version in _all(client.search_model_versions, f"name = '{model.name}'"):
            number = str(version.version)
            yield version, sorted(a for a, v in model.aliases.items() if str(v) == number)


def _rank(hit: ModelHit) -> tuple[int, str, int]:
    places = [_FIRST_ALIASES.index(a) for a in hit.aliases if a in _FIRST_ALIASES]
    return min(places, default=len(_FIRST_ALIASES)), hit.name, -int(hit.version)


def _all(call: Any, *arguments: Any) -> Iterator[Any]:
    """Every page of one of MLflow's searches."""
    token = None
    while True:
        page = call(*arguments, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
