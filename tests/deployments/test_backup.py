"""A backup of the local stack, and back from it."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from deployments import backup, environment, stack
from tasks.objects import S3Store


@pytest.fixture
def folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_ports: Callable[[], dict[str, str]]
) -> Path:
    for name, value in {**free_ports(), "RETUNE_LOCAL": str(tmp_path / "local")}.items():
        monkeypatch.setenv(name, value)
    for name in ("RETUNE_STORE", "RETUNE_POSTGRESQL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "local"


def fill(folder: Path) -> None:
    """What a stack leaves, without one."""
    for name in ("s3", "prefect", "mlflow", "runs/1", "cache", "logs"):
        (folder / name).mkdir(parents=True)
        (folder / name / "file").write_text(name)
    (folder / "runs" / "latest").symlink_to("1")
    (folder / "credentials.env").write_text("AWS_ACCESS_KEY_ID=k\n")
    (folder / "credentials.env").chmod(0o600)


def test_what_was_saved_comes_back_and_what_can_be_made_anew_does_not(
    folder: Path, tmp_path: Path
) -> None:
    fill(folder)
    file = tmp_path / "backup.tar"
    assert backup.main(["save", str(file)]) == 0
    assert file.stat().st_mode & 0o777 == 0o600
    shutil.rmtree(folder)
    assert backup.main(["restore", str(file)]) == 0
    assert (folder / "s3" / "file").read_text() == "s3"
    assert (folder / "runs" / "latest" / "file").read_text() == "runs/1"
    assert (folder / "credentials.env").stat().st_mode & 0o777 == 0o600
    assert not (folder / "cache").exists()
    assert not (folder / "restoring").exists()


def test_nothing_is_overwritten(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(folder)
    file = tmp_path / "backup.tar"
    backup.save(file)
    assert backup.main(["save", str(file)]) == 1
    assert "is there already" in capsys.readouterr().err
    assert backup.main(["restore", str(file)]) == 1
    assert "overwrites nothing" in capsys.readouterr().err
    assert (folder / "cache" / "file").exists()


@pytest.mark.parametrize("kind", ["absent", "other", "cut", "outside", "link", "device"])
def test_what_is_no_backup_is_refused_and_leaves_nothing(
    folder: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "backup.tar"
    if kind == "other":
        file.write_text("something else")
    if kind == "cut":
        fill(folder)
        (folder / "s3" / "large").write_bytes(os.urandom(100_000))
        backup.save(file)
        shutil.rmtree(folder)
        file.write_bytes(file.read_bytes()[:50_000])
    if kind == "outside":
        with tarfile.open(file, "w") as tar:
            tar.addfile(tarfile.TarInfo("retune-backup"))
            entry = tarfile.TarInfo("../escaped")
            entry.size = 4
            tar.addfile(entry, io.BytesIO(b"evil"))
    if kind in ("link", "device"):
        entry = tarfile.TarInfo("s3")
        entry.type = tarfile.SYMTYPE if kind == "link" else tarfile.CHRTYPE
        entry.linkname = ".."
        with tarfile.open(file, "w") as tar:
            tar.addfile(tarfile.TarInfo("retune-backup"))
            tar.addfile(entry)
    assert backup.main(["restore", str(file)]) == 1
    assert str(file) in capsys.readouterr().err
    assert not (folder / "s3").exists()
    assert not (folder / "restoring").exists()
    assert not (tmp_path / "escaped").exists()
    assert not (folder / "escaped").exists()


@pytest.mark.integration
def test_a_running_stack_is_saved_at_rest_and_comes_back_whole(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "backup.tar"
    try:
        stack.up()
        for name, value in environment.environment().items():
            monkeypatch.setenv(name, value)
        S3Store("s3://retune").put_bytes("kept", b"this")
        mlflow = f"http://127.0.0.1:{environment.mlflow_port()}/api/2.0/mlflow"
        created = httpx.post(f"{mlflow}/registered-models/create", json={"name": "kept"})
        assert created.is_success
        prefect = os.environ["PREFECT_API_URL"]
        before = httpx.get(f"{prefect}/deployments/name/retrain/retrain-weekly").json()["id"]
        backup.save(file)
        assert stack.status() == 0  # it is up again
        stack.down()
        shutil.rmtree(folder)
        backup.restore(file)
        stack.up()
        assert S3Store("s3://retune").get_bytes("kept") == b"this"
        found = httpx.get(f"{mlflow}/registered-models/get", params={"name": "kept"})
        assert found.json()["registered_model"]["name"] == "kept"
        after = httpx.get(f"{prefect}/deployments/name/retrain/retrain-weekly").json()["id"]
        assert after == before
    finally:
        stack.down()
