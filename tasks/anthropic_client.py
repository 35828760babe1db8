"""The client of Anthropic's Messages API, or of any server that speaks it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tasks.errors import ConfigError

if TYPE_CHECKING:
    import anthropic

TIMEOUT_SECONDS = 300.0
_MAX_RETRIES = 4
_API_VERSION_WITH_TEMPERATURE = "2023-06-01"


def make_client(
    environ: Mapping[str, str], max_retries: int = _MAX_RETRIES, base_url: str | None = None
) -> anthropic.Anthropic:
    """A client that retries throttling, server errors and lost connections, as told by the server.

    ``base_url`` goes before that of the environment. One without a key is a gateway that holds the
    key itself, or a stand-in.

    Raises:
        ConfigError: there is neither a key nor a base URL.
    """
    import anthropic  # takes a second, and every config imports this module

    key, url = environ.get("ANTHROPIC_API_KEY"), base_url or environ.get("ANTHROPIC_BASE_URL")
    if not key and not url:
        raise ConfigError(
            "neither ANTHROPIC_API_KEY nor ANTHROPIC_BASE_URL is set, and a stage is to ask a "
            "model. Set one in the environment of the worker."
        )
    return anthropic.Anthropic(
        api_key=key or "none",
        base_url=url or None,
        max_retries=max_retries,
        timeout=TIMEOUT_SECONDS,
    )


def sampling(temperature: float | None) -> dict[str, Any]:
    """What a call needs besides for a temperature; nothing for a model that accepts none."""
    if temperature is None:
        return {}
    # The client knows no temperature any more, and the API version it sends by default refuses one.
    return {
        "extra_headers": {"anthropic-version": _API_VERSION_WITH_TEMPERATURE},
        "extra_body": {"temperature": temperature},
    }
