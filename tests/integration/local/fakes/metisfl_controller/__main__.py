"""Serves the REST documents of a federation whose rounds take no training. FAKE_PLAN says how it behaves.

Keys of FAKE_PLAN["controller"]: `exit` (at once, with this status), `say` (printed before that), `deaf` (never
listens), `mute` (stops answering after the first round), `fail` (ends Failed for this reason), `corrupt` (announces a
wrong hash).
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import yaml

MODEL = b"weights" * 1000


class Federation:
    """Commits a round every `round_seconds` while all learners are there; survives a restart by its state file."""

    def __init__(self, plan: dict[str, Any], state_dir: Path) -> None:
        self.plan = plan
        self.behaviour = plan.get("controller", {})
        self.file = state_dir / "fake-rounds.json"
        document = yaml.safe_load(Path(os.environ["METISFL_FEDERATION_FILE"]).read_text())
        self.name = document["metadata"]["name"]
        self.desired = sum(group["replicas"] for group in document["spec"]["learnerGroups"])
        self.max_rounds = document["spec"]["termination"]["maxRounds"]
        self.rounds: list[dict[str, Any]] = json.loads(self.file.read_text()) if self.file.exists() else []
        self.seen: dict[str, float] = {}
        with sqlite3.connect(state_dir / "history.sqlite") as history:
            history.execute("create table if not exists starts (uid text)")
            history.execute("insert into starts values (?)", [os.environ["METISFL_FEDERATION_UID"]])

    def present(self) -> list[str]:
        return [name for name, when in self.seen.items() if time.monotonic() - when < 0.5]

    def advance(self) -> None:
        if len(self.present()) < self.desired or self.state() in ("Complete", "Failed"):
            return
        number, now = len(self.rounds) + 1, datetime.now(UTC)
        metrics = [{"name": "accuracy", "value": 1 - 0.5 / number, "version": number, "examples": 10}]
        self.rounds.append(
            {
                "number": number,
                "version": number,
                "startedAt": (now - timedelta(seconds=0.1)).isoformat(),
                "endedAt": now.isoformat(),
                "participants": self.present(),
                "contributors": self.present(),
                "phaseSeconds": {"train": 0.08, "aggregate": 0.01, "commit": 0.01},
                "trainMetrics": {"train_loss": 1.0 / number},
                "metrics": metrics,
            }
        )
        temporary = self.file.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.rounds))
        temporary.replace(self.file)

    def state(self) -> str:
        if self.behaviour.get("fail") and self.rounds:
            return "Failed"
        if len(self.rounds) >= self.max_rounds:
            return "Complete"
        return "Training" if len(self.present()) >= self.desired else "WaitingForLearners"

    def document(self) -> dict[str, Any]:
        state = self.state()
        reason = {"Complete": "MaxRoundsReached", "Failed": self.behaviour.get("fail", "")}.get(state, "")
        return {
            "name": self.name,
            "uid": os.environ["METISFL_FEDERATION_UID"],
            "incarnation": 1,
            "state": state,
            "reason": reason,
            "message": "as planned" if reason else "",
            "currentRound": len(self.rounds),
            "committedRounds": len(self.rounds),
            "maxRounds": self.max_rounds,
            "desiredLearners": self.desired,
            "learners": [
                {"id": name, "group": name.rpartition("-")[0], "connected": True, "activity": "Training"}
                for name in self.present()
            ],
            "metrics": self.rounds[-1]["metrics"] if self.rounds else [],
            "globalModel": {"version": len(self.rounds), "sha256": "ab" * 32, "location": "v", "bytes": len(MODEL)}
            if self.rounds
            else None,
        }

    def answer(self, path: str) -> Any:
        if path.startswith("/join/"):
            self.seen[path.removeprefix("/join/")] = time.monotonic()
            return {"rounds": len(self.rounds), "over": self.state() in ("Complete", "Failed")}
        path, _, query = path.partition("?")
        asked = {name: int(values[0]) for name, values in parse_qs(query).items()}

        def rounds() -> Any:
            return [entry for entry in self.rounds if entry["number"] > asked["after"]][: asked["limit"]]

        return {"/v1/federation": self.document, "/v1/rounds": rounds, "/v1/models": list}[path]()


def serve(federation: Federation) -> None:
    mute = federation.behaviour.get("mute", False)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if mute and federation.rounds and not self.path.startswith("/join/"):
                time.sleep(60)
            if self.path == "/v1/models/latest":
                digest = hashlib.sha256(b"" if federation.behaviour.get("corrupt") else MODEL).hexdigest()
                self.reply(MODEL, {"X-Metisfl-Sha256": digest})
            else:
                self.reply(json.dumps(federation.answer(self.path)).encode(), {})

        def reply(self, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(200)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    host, _, port = os.environ["METISFL_HTTP_ADDRESS"].rpartition(":")
    server = ThreadingHTTPServer((host, int(port)), Handler)
    server.daemon_threads = True
    address = f"{host}:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    if federation.behaviour.get("deaf"):
        return
    endpoints = Path(os.environ["METISFL_ENDPOINT_FILE"])
    endpoints.write_text(json.dumps({"grpc": address, "http": address}))


def main() -> None:
    state_dir = Path(os.environ["METISFL_STATE_DIR"])
    with (state_dir / "fake-pids").open("a") as pids:
        pids.write(f"controller {os.getpid()}\n")
    plan = json.loads(os.environ["FAKE_PLAN"])
    federation = Federation(plan, state_dir)
    if "exit" in federation.behaviour:
        print(federation.behaviour.get("say", ""), flush=True)
        sys.exit(federation.behaviour["exit"])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    serve(federation)
    while True:
        time.sleep(plan.get("round_seconds", 0.1))
        federation.advance()


main()
