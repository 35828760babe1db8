"""From a version in the registry to an adapter that a server answers with, or why it does not.

Fetched by its digest, loaded under a name that nobody asks for, held against its reference, and
only then loaded under the name that the gateway looks for: what is not as evaluated is not reached.
"""

from __future__ import annotations

import contextlib
import json
import logging
import uuid
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from tasks.artifacts import ModelVersion
from tasks.objects import Store
from tasks.serve.parity import Dtype, Parity, ParityError, check, read
from tasks.serve.routing import served_name
from tasks.serve.vllm_server import ServerError, VllmServer
from tasks.storage import fetch

logger = logging.getLogger(__name__)
CHECKING = "checking-"


def name_of(version: ModelVersion) -> str:
    """What a version is served as."""
    return served_name(version.name, version.adapter_digest)


def activate(server: VllmServer, store: Store, version: ModelVersion, dtype: Dtype) -> Parity:
    """Load a version once it has shown parity; safe to repeat and to stop anywhere.

    Raises ParityError where it is not what was evaluated, ServerError where the server refuses it,
    and what storage and the network raise.
    """
    if version.parity_uri is None or version.parity_digest is None:
        raise ParityError(
            f"{version.name} version {version.version} has nothing to be held against: it was "
            "registered before parity was recorded. Train it again; all stages but the last are "
            "cached."
        )
    folder = fetch(store, version.adapter_uri, version.adapter_artifact_digest)
    if not (folder / "adapter_config.json").is_file():
        raise ParityError(
            f"{version.name} version {version.version} is a whole model, which a running server "
            "cannot load: start one from its folder."
        )
    probes = read(fetch(store, version.parity_uri, version.parity_digest))
    with _under_a_name_of_its_own(server, folder) as checking:
        parity = check(server, checking, probes, dtype)
    if name_of(version) not in server.adapters():
        server.load(name_of(version), folder)
    return parity


def rank_of(store: Store, version: ModelVersion) -> int:
    """The rank of a version's adapter, the largest where layers differ; 0 of a whole model."""
    folder = fetch(store, version.adapter_uri, version.adapter_artifact_digest)
    file = folder / "adapter_config.json"
    if not file.is_file():
        return 0
    settings = json.loads(file.read_text(encoding="utf-8"))
    return max([int(settings["r"]), *map(int, (settings.get("rank_pattern") or {}).values())])


def superfluous(held: Collection[str], wanted: Mapping[str, ModelVersion]) -> list[str]:
    """The adapters that no alias asks for, and what a check that was killed has left."""
    ours = (name for name in held if "@" in name or name.startswith(CHECKING))
    return sorted(name for name in ours if name not in wanted)


@contextlib.contextmanager
def _under_a_name_of_its_own(server: VllmServer, folder: Path) -> Iterator[str]:
    name = f"{CHECKING}{uuid.uuid4().hex[:12]}"
    server.load(name, folder)
    try:
        yield name
    finally:
        with contextlib.suppress(ServerError):  # what went wrong before it is what counts
            server.unload(name)
