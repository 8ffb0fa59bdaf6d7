from __future__ import annotations

import importlib.util
import os
import pickle
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from language_samples import ENG, NNO, NOB, SME, needs_heliport, write_fasttext_model

from normistral.corpus.language_id import served
from normistral.corpus.language_id.served import ServedIdentifier
from normistral.errors import UserError
from normistral.records import sha256_of_file

MODEL_WORDS = {
    "__label__nob_Latn": ("jeg", "ikke", "hvordan", "noen"),
    "__label__nno_Latn": ("eg", "ikkje", "korleis", "nokon"),
    "__label__srp_Cyrl": ("није", "како", "неко"),
}


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Servers of this test alone, which end soon after it; short, as socket paths have to be."""
    folder = Path(tempfile.mkdtemp(prefix="lid"))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(served, "IDLE_SECONDS", 0.5)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    pytest.importorskip("fasttext")
    write_fasttext_model(tmp_path / "model.bin", MODEL_WORDS)
    return tmp_path / "model.bin"


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(pid: int, seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not is_running(pid)


@needs_heliport
def test_heliport_tells_the_languages_of_prose_apart() -> None:
    identifier = ServedIdentifier("heliport")
    found = identifier.identify([NOB, NNO, SME, ENG, "", "1234", "\x00", "half \ud800 a pair"])
    assert [ranking[0][0] for ranking in found[:4]] == ["nob", "nno", "sme", "eng"]
    assert all(ranking[0][1] > 0.9 for ranking in found[:4])
    assert all(abs(sum(score for _, score in ranking) - 1) < 1e-3 for ranking in found)
    assert {"nob", "sme", "smj", "sma", "smn", "sms"} <= identifier.known


def test_the_labels_of_a_fasttext_model_are_codes_of_recipes(own_folder: Path, model: Path) -> None:
    identifier = ServedIdentifier("fasttext", model, sha256_of_file(model).upper())
    found = identifier.identify(["jeg vet ikke hvordan", "eg veit\nikkje korleis", "неко није", "xyzzy"])
    assert [ranking[0][0] for ranking in found[:3]] == ["nob", "nno", "srp"]
    assert all(ranking[0][1] > 0.99 for ranking in found[:3])
    assert identifier.known == {"nob", "nno", "srp"}


def test_workers_share_one_process_that_ends_after_the_last_of_them(own_folder: Path, model: Path) -> None:
    first, second = ServedIdentifier("fasttext", model), ServedIdentifier("fasttext", model)
    server = parent_of(first.pid)
    assert parent_of(second.pid) == server
    assert first.pid != second.pid
    del first
    time.sleep(1.5)  # longer than it waits when idle
    assert second.identify(["eg"])[0][0][0] == "nno"
    assert parent_of(second.pid) == server
    del second
    assert wait_until_gone(server)
    assert not list(own_folder.rglob("*.socket"))


def test_workers_that_come_at_once_start_one_process(own_folder: Path, model: Path) -> None:
    clients = [ServedIdentifier("fasttext", model) for _ in range(6)]
    threads = [threading.Thread(target=client.identify, args=(["eg"],)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({parent_of(client.pid) for client in clients}) == 1


def test_a_process_that_has_died_is_started_again(own_folder: Path, model: Path) -> None:
    identifier = ServedIdentifier("fasttext", model)
    child = identifier.pid
    server = parent_of(child)
    os.kill(child, signal.SIGKILL)
    assert identifier.identify(["eg"])[0][0][0] == "nno"
    assert parent_of(identifier.pid) == server
    os.kill(server, signal.SIGKILL)
    os.kill(identifier.pid, signal.SIGKILL)
    assert identifier.identify(["jeg"])[0][0][0] == "nob"
    assert parent_of(identifier.pid) != server


def test_texts_that_end_the_process_twice_are_an_error_that_says_so(
    own_folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identifier = ServedIdentifier("fasttext", model)
    original = served._Connection.ask

    def die(self: served._Connection, texts: list[str]) -> list[object]:
        os.kill(self.pid, signal.SIGKILL)
        wait_until_gone(self.pid)
        return original(self, texts)

    monkeypatch.setattr(served._Connection, "ask", die)
    with pytest.raises(UserError, match="process of fasttext ended twice over the same 2 texts"):
        identifier.identify(["jeg", "eg"])


def test_a_worker_has_its_own_connection_after_a_fork(own_folder: Path, model: Path) -> None:
    identifier = ServedIdentifier("fasttext", model)
    before = identifier.pid
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        found = identifier.identify(["eg", "jeg"])
        os.write(writer, f"{identifier.pid} {found[0][0][0]} {found[1][0][0]}".encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        pid, *languages = pipe.read().split()
    os.waitpid(child, 0)
    assert languages == ["nno", "nob"]
    assert int(pid) != before
    assert identifier.identify(["eg"])[0][0][0] == "nno"
    assert identifier.pid == before


def test_a_copy_for_another_process_is_not_connected(own_folder: Path, model: Path) -> None:
    identifier = ServedIdentifier("fasttext", model)
    identifier.identify(["eg"])
    copy = pickle.loads(pickle.dumps(identifier))
    assert copy.identify(["eg"]) == identifier.identify(["eg"])


def test_answers_do_not_depend_on_how_texts_are_sent(
    own_folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identifier = ServedIdentifier("fasttext", model)
    texts = ["jeg ikke", "eg", "како", "eg jeg eg"] * 5
    together = identifier.identify(texts)
    monkeypatch.setattr(served, "REQUEST_CHARACTERS", 7)
    assert identifier.identify(texts) == together
    assert len(together) == len(texts)


def test_a_socket_left_by_a_dead_process_is_replaced(own_folder: Path, model: Path) -> None:
    path = served._socket_path("fasttext", model)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert ServedIdentifier("fasttext", model).identify(["eg"])[0][0][0] == "nno"


def test_a_folder_that_others_may_enter_is_refused(own_folder: Path, model: Path) -> None:
    folder = own_folder / f"normistral-{os.geteuid()}"
    folder.mkdir()
    folder.chmod(0o755)
    with pytest.raises(UserError, match="only you may enter"):
        ServedIdentifier("fasttext", model).identify(["eg"])


def test_a_link_in_place_of_the_folder_is_refused(own_folder: Path, model: Path, tmp_path: Path) -> None:
    (own_folder / f"normistral-{os.geteuid()}").symlink_to(tmp_path)
    with pytest.raises(UserError, match="only you may enter"):
        ServedIdentifier("fasttext", model).identify(["eg"])


def test_a_long_temporary_folder_is_no_obstacle(
    own_folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = own_folder / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    identifier = ServedIdentifier("fasttext", model)
    assert identifier.identify(["eg"])[0][0][0] == "nno"
    server = parent_of(identifier.pid)
    del identifier
    assert wait_until_gone(server)


def test_a_file_that_is_no_model_is_named(own_folder: Path, model: Path) -> None:
    model.write_bytes(b"no model")
    with pytest.raises(UserError, match=r"fasttext could not load the model .*model\.bin"):
        ServedIdentifier("fasttext", model).identify(["eg"])


def test_a_missing_model_and_another_checksum_are_named(model: Path) -> None:
    with pytest.raises(UserError, match=r"language_id\.model is '/nowhere/lid\.bin', which is no file"):
        ServedIdentifier("fasttext", Path("/nowhere/lid.bin"))
    with pytest.raises(UserError, match=r"has SHA-256 [0-9a-f]{64}, but language_id\.model_sha256 is 0000"):
        ServedIdentifier("fasttext", model, "0" * 64)


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package heliport.*pip install 'normistral\[heliport\]'"):
        ServedIdentifier("heliport")


def test_heliport_is_never_part_of_this_process(own_folder: Path, model: Path) -> None:
    pid = ServedIdentifier("fasttext", model).pid
    command = Path(f"/proc/{parent_of(pid)}/cmdline").read_text().split("\0")
    assert command[2].endswith("language_id/server.py")
    assert "heliport" not in sys.modules
    assert "import normistral" not in Path(command[2]).read_text()
    assert "from normistral" not in Path(command[2]).read_text()
