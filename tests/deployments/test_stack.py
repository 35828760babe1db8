from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from deployments import environment, processes
from deployments.stack import down, main, status, up

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_ports: Callable[[], dict[str, str]]
) -> Path:
    """A folder and ports of one's own, with nothing running."""
    for name, value in {**free_ports(), "RETUNE_LOCAL": str(tmp_path / "local")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RETUNE_POSTGRESQL", raising=False)
    return tmp_path / "local"


def test_a_taken_port_is_named_with_its_variable(
    apart: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", environment.s3_port() + 3))
        other.listen()
        assert main(["up"]) == 1
    message = capsys.readouterr().err
    assert f"Port {environment.s3_port() + 3} for S3's filer" in message
    assert "set RETUNE_S3_PORT to another port" in message
    assert not processes.members(apart)


def test_a_folder_that_cannot_be_written_is_one_line(
    apart: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    apart.parent.joinpath("file").write_text("")
    monkeypatch.setenv("RETUNE_LOCAL", str(apart.parent / "file" / "below"))
    assert main(["up"]) == 1
    message = capsys.readouterr().err
    assert "Cannot write to" in message
    assert message.count("\n") == 1


def test_too_little_space_is_refused(
    apart: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2**40, 2**40 - 2**30, 2**30))
    assert main(["up"]) == 1
    assert "1.0 GiB free, expected 3" in capsys.readouterr().err


def test_a_stranger_with_our_old_process_id_is_left_alone(apart: Path) -> None:
    apart.mkdir()
    with subprocess.Popen(["sleep", "60"]) as stranger:
        processes.pid_file(apart).write_text(str(stranger.pid))
        assert processes.supervisor(apart) is None
        down()
        assert stranger.poll() is None
        stranger.kill()
    assert not processes.pid_file(apart).exists()


def test_what_bears_our_mark_is_stopped_without_a_pid_file(apart: Path) -> None:
    ours = subprocess.Popen(["sleep", "60"], env={**os.environ, processes.MARK: str(apart)})
    processes.await_mark(ours, apart)
    assert [p.pid for p in processes.members(apart)] == [ours.pid]
    assert processes.stop(apart)
    assert not psutil.pid_exists(ours.pid)


def test_a_process_just_started_is_known_by_its_mark(apart: Path) -> None:
    for _ in range(300):  # without waiting, one in ten was taken for a stranger
        with subprocess.Popen(
            ["sleep", "60"], env={**os.environ, processes.MARK: str(apart)}
        ) as ours:
            processes.await_mark(ours, apart)
            processes.pid_file(apart).parent.mkdir(exist_ok=True)
            processes.pid_file(apart).write_text(str(ours.pid))
            assert processes.supervisor(apart) is not None
            ours.kill()


def test_a_start_that_ends_at_once_is_not_waited_for(apart: Path) -> None:
    with subprocess.Popen(["true"]) as stranger:
        processes.await_mark(stranger, apart)
        assert stranger.wait() == 0


def test_a_supervisor_that_ends_is_named(
    apart: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environment, "home", lambda: apart.parent)  # where no Procfile is
    assert main(["up"]) == 1
    message = capsys.readouterr().err
    assert "honcho ended" in message
    assert "Procfile" in message


def test_down_is_idempotent(apart: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["down"]) == 0
    assert main(["down"]) == 0
    assert capsys.readouterr().out.count("was not running") == 2


def test_status_without_a_stack(apart: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status"]) == 1
    assert "not running" in capsys.readouterr().out


def test_an_unknown_command_is_refused() -> None:
    assert main(["restart"]) == 2


@pytest.mark.integration
def test_a_service_that_cannot_start_is_named_with_its_log(
    apart: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (apart / "s3").mkdir(parents=True)
    (apart / "s3" / "filerldb2").write_text("not the folder that it should be")
    assert main(["up"]) == 1
    message = capsys.readouterr().err
    assert "s3 ended with code" in message
    assert "Not a valid folder" in message
    assert not processes.members(apart)


@pytest.mark.integration
def test_a_second_up_reuses_the_stack(stack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = processes.pid_file(stack).read_text()
    up()
    assert processes.pid_file(stack).read_text() == before
    assert "up already" in capsys.readouterr().out
    assert status() == 0


@pytest.mark.integration
def test_other_settings_than_the_running_ones_are_refused(
    stack: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RETUNE_STORE", "s3://elsewhere")
    assert main(["up"]) == 1
    assert "RETUNE_STORE" in capsys.readouterr().err


@pytest.mark.integration
def test_everything_listens_on_loopback_alone(stack: Path) -> None:
    listening = {
        connection.laddr
        for process in processes.members(stack)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert {port.number for port in environment.ports()} <= {a.port for a in listening}


@pytest.mark.integration
def test_the_secret_is_in_no_log_and_on_no_command_line(stack: Path) -> None:
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    assert len(secret) >= 20
    for log in (stack / "logs").iterdir():
        assert secret not in log.read_text(errors="replace"), log.name
    for process in processes.members(stack):
        assert secret not in " ".join(process.cmdline())


@pytest.mark.integration
def test_a_dead_service_is_named_and_up_restarts_the_stack(
    stack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mlflow = next(p for p in processes.members(stack) if "mlflow" in " ".join(p.cmdline()[:2]))
    mlflow.kill()
    deadline = time.monotonic() + 30
    while processes.supervisor(stack) is not None and time.monotonic() < deadline:
        time.sleep(0.2)
    assert status() == 1
    assert "mlflow ended first, with code -9" in capsys.readouterr().out
    up()
    assert status() == 0
