from __future__ import annotations

import stat
from pathlib import Path

import pytest

from deployments import environment
from tasks.errors import ConfigError, StorageError

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
OWN = (
    "RETUNE_S3_PORT",
    "RETUNE_PREFECT_PORT",
    "RETUNE_MLFLOW_PORT",
    "RETUNE_WEBHOOK_PORT",
    "RETUNE_GATEWAY_PORT",
    "RETUNE_STORE",
    "RETUNE_MODELS",
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (*KEYS, *OWN, "HF_HUB_OFFLINE", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RETUNE_LOCAL", str(tmp_path / "local"))
    return tmp_path / "local"


def test_default_ports_are_those_of_the_contract() -> None:
    assert environment.addresses() == {
        "Prefect": "http://127.0.0.1:4200",
        "MLflow": "http://127.0.0.1:5000",
        "Webhook": "http://127.0.0.1:8090",
        "Gateway": "http://127.0.0.1:8080",
        "S3": "http://127.0.0.1:8333",
    }


def test_derived_ports_are_listed_with_the_variable_that_moves_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RETUNE_S3_PORT", "9000")
    s3 = {p.number for p in environment.ports() if p.variable == "RETUNE_S3_PORT"}
    assert s3 == {9000, 9001, 9002, 9003, 9004, 19000, 19001, 19002, 19003, 19004}
    assert environment.environment()["RETUNE_S3_FILER_PORT"] == "9003"


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("RETUNE_PREFECT_PORT", "web", "RETUNE_PREFECT_PORT=web: expected a port"),
        ("RETUNE_MLFLOW_PORT", "0", "expected a port"),
        ("RETUNE_S3_PORT", "60000", "expected at most 55531"),
        ("RETUNE_MLFLOW_PORT", "4200", "change RETUNE_MLFLOW_PORT or RETUNE_PREFECT_PORT"),
        ("RETUNE_PREFECT_PORT", "18334", "RETUNE_S3_PORT"),
    ],
)
def test_unusable_ports_are_named(
    variable: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=message):
        environment.ports()


def test_everything_lies_in_the_local_folder(folder: Path) -> None:
    found = environment.environment()
    for name in ("PREFECT_HOME", "MPLCONFIGDIR", "HF_HOME", "RETUNE_MODELS"):
        assert Path(found[name]).is_relative_to(folder), name
    assert str(folder) in found["PREFECT_API_DATABASE_CONNECTION_URL"]


def test_a_relative_local_folder_is_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RETUNE_LOCAL", "here")
    assert environment.local() == tmp_path / "here"


def test_the_hub_is_off_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment.environment()["HF_HUB_OFFLINE"] == "1"
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert environment.environment()["HF_HUB_OFFLINE"] == "0"


def test_keys_are_made_once_for_their_owner_alone(folder: Path) -> None:
    first, second = environment.environment(), environment.environment()
    assert [first[key] for key in KEYS] == [second[key] for key in KEYS]
    assert stat.S_IMODE((folder / "credentials.env").stat().st_mode) == 0o600
    assert [file.name for file in folder.iterdir()] == ["credentials.env"]


def test_keys_of_the_environment_win(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in KEYS:
        monkeypatch.setenv(key, f"my-{key}")
    assert environment.environment()[KEYS[1]] == f"my-{KEYS[1]}"
    assert not (folder / "credentials.env").exists()


def test_half_a_pair_of_keys_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEYS[0], "alone")
    with pytest.raises(ConfigError, match=KEYS[1]):
        environment.environment()


def test_a_damaged_file_of_keys_is_named(folder: Path) -> None:
    folder.mkdir()
    (folder / "credentials.env").write_text("AWS_ACCESS_KEY_ID=\n")
    with pytest.raises(ConfigError, match=r"credentials\.env"):
        environment.environment()


def test_the_pool_is_one_of_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment.environment()["RETUNE_POOL"] == "cpu"
    monkeypatch.setenv("RETUNE_POOL", "gpu")
    assert environment.environment()["RETUNE_POOL"] == "gpu"
    monkeypatch.setenv("RETUNE_POOL", "tpu")
    with pytest.raises(ConfigError, match="RETUNE_POOL=tpu: expected cpu or gpu"):
        environment.environment()


def test_a_login_is_made_once_for_its_owner_alone_and_only_when_wanted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RETUNE_AUTH", raising=False)
    off = environment.environment()
    assert off["RETUNE_AUTH"] == ""
    assert "PREFECT_SERVER_API_AUTH_STRING" not in off
    monkeypatch.setenv("RETUNE_AUTH", "1")
    first, second = environment.environment(), environment.environment()
    assert first == second
    user, _, password = first["PREFECT_SERVER_API_AUTH_STRING"].partition(":")
    assert len(password) >= 32
    assert first["PREFECT_API_AUTH_STRING"] == f"{user}:{password}"
    assert (first["MLFLOW_TRACKING_USERNAME"], first["MLFLOW_TRACKING_PASSWORD"]) == (
        (user, password)
    )
    assert password not in first["MLFLOW_FLASK_SERVER_SECRET_KEY"]
    assert stat.S_IMODE((folder / "login.env").stat().st_mode) == 0o600
    monkeypatch.setenv("RETUNE_AUTH", "yes")
    with pytest.raises(ConfigError, match="RETUNE_AUTH=yes: expected 1"):
        environment.environment()


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RETUNE_LOCAL", str(tmp_path / "file" / "below"))
    with pytest.raises(StorageError, match="RETUNE_LOCAL"):
        environment.environment()


@pytest.mark.parametrize("store", ["/srv/store", "s3://", "retune"])
def test_a_store_that_is_no_bucket_is_refused(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETUNE_STORE", store)
    with pytest.raises(ConfigError, match="RETUNE_STORE"):
        environment.environment()


def test_calls_to_the_stack_pass_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "example.org")
    assert environment.environment()["NO_PROXY"] == "example.org,127.0.0.1,localhost"


def test_the_receivers_config_is_found_from_the_stacks_folder_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RETUNE_WEBHOOK_CONFIG", "my hooks.yaml")
    found = environment.environment()["RETUNE_WEBHOOK_CONFIG"]
    assert found == str(Path("my hooks.yaml").absolute())
    monkeypatch.delenv("RETUNE_WEBHOOK_CONFIG")
    assert environment.environment()["RETUNE_WEBHOOK_CONFIG"] == ""
