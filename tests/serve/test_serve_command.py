"""`normistral serve` as a command: its messages, its end, and what it leaves behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from normistral.cli.main import main
from normistral.errors import UserError
from normistral.inference import LoadedModel
from normistral.serve.llama import LlamaEngine, LlamaSettings
from normistral.serve.run import bind, find_gguf, name_of
from normistral.serve.settings import ServerSettings, check_settings
from normistral.serve.tokens import base_tokenizer
from normistral.weights import export_gguf

if TYPE_CHECKING:
    from conftest import TaughtModel


def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What `normistral serve ARGUMENTS` says when it ends with code 2."""
    monkeypatch.setattr(sys, "argv", ["normistral", "serve", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_what_cannot_be_served_is_told_in_a_sentence(
    taught: TaughtModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(taught.folder)
    with bind("127.0.0.1", 0) as other:
        port = str(other.getsockname()[1])
        said = refusal(monkeypatch, capsys, model, "--port", port)
        assert f"port {port} on 127.0.0.1 is taken by another program: stop it, or choose" in said
    assert "does not exist" in refusal(monkeypatch, capsys, str(tmp_path / "none"), "--port", "0")
    missing = str(tmp_path / "x.gguf")
    assert f"{missing} does not exist" in refusal(
        monkeypatch, capsys, model, "--port", "0", "--gguf", missing
    )
    assert "no address" in refusal(monkeypatch, capsys, model, "--host", "no such host", "--port", "0")
    assert "--timeout is 0" in refusal(monkeypatch, capsys, model, "--timeout", "0")
    warned = refusal(monkeypatch, capsys, str(tmp_path / "none"), "--host", "0.0.0.0", "--port", "0")
    assert "there is no token" in warned


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"port": 70000}, {"concurrency": 0}, {"queue": -1}, {"token": "short"}, {"max_body": 1}):
        with pytest.raises(UserError, match="expected"):
            check_settings(ServerSettings("model", **wrong))  # type: ignore[arg-type]


def test_the_smallest_gguf_writes(taught: TaughtModel, tmp_path: Path) -> None:
    for name, size in (("a-F16.gguf", 9), ("b-Q4_0.gguf", 3)):
        (tmp_path / name).write_bytes(b"x" * size)
    found = find_gguf(ServerSettings(str(tmp_path)))
    assert found is not None
    assert found.name == "b-Q4_0.gguf"
    assert find_gguf(ServerSettings(str(tmp_path), gguf="none")) is None
    assert find_gguf(ServerSettings(str(taught.folder))) is None


async def start(engine: LlamaEngine, size: int) -> None:
    await engine.start(size)


def test_a_gguf_that_is_none_or_another_models_is_refused(taught_gguf: Path, tmp_path: Path) -> None:
    import asyncio

    broken = tmp_path / "broken.gguf"
    broken.write_bytes(taught_gguf.read_bytes()[:5000])
    for file, size, said in ((broken, 400, "cannot open"), (taught_gguf, 401, "vocabulary of 400")):
        with pytest.raises(UserError, match=said):
            asyncio.run(start(LlamaEngine(LlamaSettings(file, 64, 1, 1)), size))


def test_a_model_of_a_run_has_the_runs_name_and_its_bases_tokenizer(
    taught: TaughtModel, tmp_path: Path
) -> None:
    run = tmp_path / "nordic"
    shutil.copytree(taught.folder, run / "base" / "model")
    (run / "model").mkdir()
    (run / "run.json").write_text("{}", encoding="utf-8")
    assert name_of(ServerSettings(str(run / "model"))) == "nordic"
    assert name_of(ServerSettings(str(run / "base" / "model"), name="mine")) == "mine"
    found = base_tokenizer(str(run / "model"), None)
    assert found is not None
    assert found.role == "base"
    assert base_tokenizer(str(taught.folder), None) is None
    with pytest.raises(UserError, match="none"):
        base_tokenizer(str(taught.folder), tmp_path / "none")


def children_of(parent: int) -> list[int]:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii")
    return [int(child) for child in children.split()]


def ends(process: int) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{process}/stat").read_text(encoding="utf-8").split(") ")[1][0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


def test_the_command_serves_and_ends_in_order(taught: TaughtModel, taught_gguf: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(taught.folder, tmp_path / "mine"))
    shutil.copy(taught_gguf, folder / "mine-F32.gguf")
    command = [
        sys.executable,
        "-m",
        "normistral",
        "serve",
        str(folder),
        "--port",
        "0",
        "--json",
        "--threads",
        "1",
    ]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert server.stdout is not None
    facts = json.loads(server.stdout.readline())
    assert facts["model"] == "mine"
    assert facts["engine"] == "llama.cpp (mine-F32.gguf)"
    children = children_of(server.pid)
    assert len(children) == 1
    # Asked to end while it writes, it finishes its answer first.
    body = {"prompt": taught.prompt, "max_tokens": 20, "temperature": 0, "stop": "\n", "stream": True}
    with httpx.stream("POST", f"{facts['url']}/v1/completions", json=body, timeout=60) as answer:
        os.kill(server.pid, signal.SIGTERM)
        text = "".join(
            choice["text"]
            for line in answer.iter_lines()
            if line.startswith("data: {")
            for choice in json.loads(line[6:])["choices"]
        )
    assert text == taught.translation
    _, errors = server.communicate(timeout=60)
    assert (server.returncode, errors) == (0, "")
    assert all(ends(child) for child in children)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(facts["url"].rsplit(":", 1)[1])))


STARTER = """
import subprocess, sys, time
child = subprocess.Popen(
    [sys.executable, "-m", "normistral.serve.llama_process", sys.argv[1]],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(600)
"""


def test_a_server_that_is_killed_leaves_no_engine_behind(taught_gguf: Path, tmp_path: Path) -> None:
    arguments = {"model": str(taught_gguf), "socket": str(tmp_path / "s.sock"), "context": 64, "parallel": 1}
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, json.dumps(arguments | {"threads": 1})],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert starter.stdout is not None
    child = int(starter.stdout.readline())
    assert not Path(f"/proc/{child}/stat").read_text(encoding="utf-8").split(") ")[1].startswith("Z")
    starter.kill()
    starter.communicate()
    assert ends(child)


@pytest.mark.parametrize(("kind", "bound", "agreement"), [("Q8_0", 0.1, 0.95), ("Q4_0", 1.2, 0.6)])
def test_a_quantised_gguf_keeps_near_the_model(
    kind: str, bound: float, agreement: float, taught: TaughtModel, taught_model: LoadedModel, tmp_path: Path
) -> None:
    """Bounds for a random model of width 64, whose weights round badly; docs/serve.md has a real one's."""
    from serving import running

    from normistral.inference import score_texts

    path = tmp_path / "taught.gguf"
    export_gguf(taught.folder, path, kind)  # type: ignore[arg-type]
    texts = [taught.prompt + taught.translation, taught.masked_sentence.replace("<mask>", " de")]
    settings = ServerSettings(str(taught.folder), threads=1, concurrency=8)
    differences, same = [], []
    with running(taught_model, settings, path) as server:
        for text in texts:
            ids = taught_model.tokenizer(text).input_ids
            prompts = [ids[:end] for end in range(2, len(ids))]
            exact = score_texts(taught_model, [text])[0]
            answer = server.post(
                "/v1/completions", {"prompt": prompts, "max_tokens": 1, "temperature": 0, "logprobs": 20}
            )
            for choice, target, nats in zip(
                answer.json()["choices"], exact.tokens[1:], exact.log_probabilities[1:], strict=True
            ):
                top = choice["logprobs"]["top_logprobs"][0] if choice["logprobs"]["top_logprobs"] else {}
                if target in top:
                    differences.append(abs(top[target] - nats))
                    same.append(nats <= max(top.values()) + 0.5)
    assert len(differences) > 10
    assert sum(differences) / len(differences) < bound
    assert sum(same) / len(same) >= agreement
