"""The errors of the pipeline, and the one rule for which of them are worth a retry.

A message names what was expected, what came and what to do. Each class also inherits the standard
type that a caller unaware of Retune would catch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator


class RetuneError(Exception):
    """Base of every error that Retune raises on purpose."""


class ConfigError(RetuneError, ValueError):
    """A configuration that cannot be run: a wrong field, or fields that contradict each other."""


class DataError(RetuneError, ValueError):
    """Data that cannot be used: an unreadable file, an empty data set, too many rejected rows."""


class MissingFileError(RetuneError, FileNotFoundError):
    """A file or folder named in a configuration that is in none of the places looked at."""


class GoldenSetChangedError(RetuneError):
    """The golden set differs from the one that was locked under the same name and version."""


class StorageError(RetuneError, OSError):
    """Storage refused or broke: wrong credentials, a full disk, a corrupt artifact."""


class ArtifactMissingError(StorageError):
    """An artifact that a record points to is absent, incomplete or has another digest."""


class TemplateError(RetuneError, ValueError):
    """The chat template is missing, or renders something that training must not see."""


class TrainingError(RetuneError, RuntimeError):
    """Training cannot go on: the loss is not a number, or nothing is trainable."""


class PreemptedError(RetuneError, InterruptedError):
    """The machine is being taken away; a checkpoint was saved, and the next attempt goes on."""


class RegistryError(RetuneError, LookupError):
    """The model registry has no such model or version, or one that may not be promoted."""


class StaleDecisionError(RetuneError):
    """The champion changed between the decision and the promotion."""


# Class names rather than classes: errors.py is imported by every module, and must not pull in
# botocore, requests, httpx, anthropic and MLflow to recognise what they raise.
_TRANSIENT_NAMES = frozenset(
    {
        # botocore
        "HTTPClientError",
        "EndpointConnectionError",
        "ConnectionClosedError",
        "ConnectTimeoutError",
        "ReadTimeoutError",
        "ResponseStreamingError",
        "IncompleteReadError",
        "RetriesExceededError",  # boto3, of a download; it keeps no cause
        # requests, urllib3, httpx, aiohttp
        "ConnectionError",
        "Timeout",
        "ChunkedEncodingError",
        "ProtocolError",
        "MaxRetryError",
        "TransportError",
        "RemoteProtocolError",
        "ClientConnectionError",
        # anthropic, openai
        "APIConnectionError",
        "APITimeoutError",
    }
)
# Raised before anything was sent: the address is wrong, and stays so.
_LASTING_NAMES = frozenset({"UnsupportedProtocol", "LocalProtocolError"})
_THROTTLING_CODES = frozenset(
    {"Throttling", "ThrottlingException", "SlowDown", "RequestTimeout", "ServiceUnavailable"}
)
_TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504, 529})


def is_transient(error: BaseException) -> bool:
    """Whether trying again may help: time-outs, lost connections, throttling, 5xx answers.

    The causes of ``error`` count too, since client libraries wrap what the network raised. Retune's
    own errors are never transient unless the network caused them, but for PreemptedError.
    """
    return any(_is_transient_itself(link) for link in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _is_transient_itself(error: BaseException) -> bool:
    if isinstance(error, ConnectionError | TimeoutError | PreemptedError):
        return True
    names = {base.__name__ for base in type(error).__mro__}
    if names & _TRANSIENT_NAMES:
        return not names & _LASTING_NAMES
    status, code = _status_and_code(error)
    return status in _TRANSIENT_STATUSES or code in _THROTTLING_CODES


def _status_and_code(error: BaseException) -> tuple[int | None, str | None]:
    """The HTTP status and the service's own code, where the library keeps them on the error."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore.exceptions.ClientError
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return status, response.get("Error", {}).get("Code")
    get_status = getattr(error, "get_http_status_code", None)  # mlflow.exceptions.MlflowException
    if callable(get_status) and re.match("API request to .* failed", str(error)):
        return get_status(), None
    status = getattr(error, "status_code", None) or getattr(response, "status_code", None)
    return (status if isinstance(status, int) else None), None
