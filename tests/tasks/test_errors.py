"""Which errors are worth a retry: what the clients really raise, with the causes they wrap."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anthropic
import boto3.exceptions
import botocore.exceptions
import httpx
import httpx2
import pytest
import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from tasks.errors import (
    ArtifactMissingError,
    ConfigError,
    DataError,
    GoldenSetChangedError,
    MissingFileError,
    PreemptedError,
    StaleDecisionError,
    StorageError,
    TemplateError,
    TrainingError,
    is_transient,
)

REQUEST = httpx.Request("POST", "http://127.0.0.1/v1")
SENT = httpx2.Request("POST", "http://127.0.0.1/v1")  # what the client of anthropic is built on


def client_error(code: str, status: int) -> Exception:
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error: Exception = botocore.exceptions.ClientError(answer, "PutObject")
    return error


def requests_status(status: int) -> Exception:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError("failed", response=response)


def httpx_status(status: int) -> Exception:
    response = httpx.Response(status, request=REQUEST)
    return httpx.HTTPStatusError("failed", request=REQUEST, response=response)


def anthropic_status(kind: type[anthropic.APIStatusError], status: int) -> Exception:
    return kind("failed", response=httpx2.Response(status, request=SENT), body=None)


PASSING = [
    botocore.exceptions.EndpointConnectionError(endpoint_url="http://s3"),
    botocore.exceptions.ConnectTimeoutError(endpoint_url="http://s3"),
    botocore.exceptions.ReadTimeoutError(endpoint_url="http://s3"),
    botocore.exceptions.ConnectionClosedError(endpoint_url="http://s3"),
    botocore.exceptions.ResponseStreamingError(error="reset"),
    boto3.exceptions.RetriesExceededError(None),
    client_error("503", 503),
    client_error("SlowDown", 503),
    client_error("Throttling", 400),
    client_error("InternalError", 500),
    requests.ConnectionError("refused"),
    requests.ReadTimeout("slow"),
    requests.exceptions.ChunkedEncodingError("cut"),
    requests_status(502),
    requests_status(429),
    httpx.ConnectError("refused"),
    httpx.ReadTimeout("slow"),
    httpx.RemoteProtocolError("cut"),
    httpx_status(503),
    anthropic.APIConnectionError(request=SENT),
    anthropic.APITimeoutError(request=SENT),
    httpx2.ConnectTimeout("slow"),
    anthropic_status(anthropic.RateLimitError, 429),
    anthropic_status(anthropic.InternalServerError, 529),
    ConnectionResetError("reset"),
    TimeoutError("slow"),
    BrokenPipeError("broken"),
]
LASTING = [
    client_error("AccessDenied", 403),
    client_error("NoSuchKey", 404),
    botocore.exceptions.NoCredentialsError(),
    botocore.exceptions.ParamValidationError(report="wrong"),
    requests_status(404),
    requests.exceptions.InvalidURL("wrong"),
    httpx_status(401),
    httpx.UnsupportedProtocol("wrong"),
    anthropic_status(anthropic.AuthenticationError, 401),
    anthropic_status(anthropic.BadRequestError, 400),
    MlflowException("a bug in the client has no status of its own"),
    MlflowException.invalid_parameter_value("wrong"),
    PermissionError("denied"),
    FileNotFoundError("gone"),
    OSError(28, "No space left on device"),
    MemoryError(),
    KeyError("status_code"),
]


@pytest.mark.parametrize("error", PASSING, ids=lambda e: f"{type(e).__module__}-{e}"[:60])
def test_what_passes_is_worth_a_retry(error: Exception) -> None:
    assert is_transient(error)


@pytest.mark.parametrize("error", LASTING, ids=lambda e: f"{type(e).__module__}-{e}"[:60])
def test_what_lasts_is_not(error: Exception) -> None:
    assert not is_transient(error)


OWN = (
    ConfigError,
    DataError,
    MissingFileError,
    GoldenSetChangedError,
    StorageError,
    ArtifactMissingError,
    TemplateError,
    TrainingError,
    StaleDecisionError,
)


def wrapped(kind: type[Exception], cause: Exception) -> Exception:
    error = kind("wrapped")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("kind", OWN)
def test_own_errors_pass_only_when_the_network_caused_them(kind: type[Exception]) -> None:
    assert not is_transient(kind("as raised"))
    assert not is_transient(wrapped(kind, KeyError("x")))
    assert is_transient(wrapped(kind, httpx.ConnectError("refused")))
    assert is_transient(wrapped(kind, wrapped(OSError, TimeoutError())))


def test_a_preempted_training_is_worth_a_retry_and_an_interrupted_call_is_not() -> None:
    assert is_transient(PreemptedError("SIGTERM at step 40"))
    assert is_transient(wrapped(TrainingError, PreemptedError("SIGTERM at step 40")))
    assert not is_transient(InterruptedError("a system call"))


def test_an_error_raised_while_handling_another_counts_unless_it_is_cut_off() -> None:
    error = ValueError("raised in an except clause")
    error.__context__ = ConnectionResetError()
    assert is_transient(error)
    error.__suppress_context__ = True  # what `raise ... from None` sets
    assert not is_transient(error)


def test_a_circle_of_causes_ends() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert not is_transient(first)


class _Answering(BaseHTTPRequestHandler):
    status = 200
    body = b""

    def do_GET(self) -> None:
        if self.status == 0:  # hang up without a word
            self.close_connection = True
            return
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    running = ThreadingHTTPServer(("127.0.0.1", 0), _Answering)
    threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()


def mlflow_answer(code: str) -> bytes:
    return json.dumps({"error_code": code, "message": "said the server"}).encode()


@pytest.mark.parametrize(
    ("status", "body", "passes"),
    [
        (503, b"busy", True),
        (502, b"<html>bad gateway</html>", True),
        (500, mlflow_answer("INTERNAL_ERROR"), True),
        (429, mlflow_answer("REQUEST_LIMIT_EXCEEDED"), True),
        (0, b"", True),
        (404, mlflow_answer("RESOURCE_DOES_NOT_EXIST"), False),
        (400, mlflow_answer("INVALID_PARAMETER_VALUE"), False),
        (403, b"forbidden", False),
        (200, b"<html>not MLflow at all</html>", False),
    ],
)
def test_what_the_mlflow_client_raises(
    server: str, monkeypatch: pytest.MonkeyPatch, status: int, body: bytes, passes: bool
) -> None:
    monkeypatch.setattr(_Answering, "status", status)
    monkeypatch.setattr(_Answering, "body", body)
    with pytest.raises(MlflowException) as caught:
        MlflowClient(server).get_registered_model("support")
    assert is_transient(caught.value) is passes


def test_mlflow_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(MlflowException) as caught:
        MlflowClient("http://127.0.0.1:9").get_registered_model("support")
    assert is_transient(caught.value)
