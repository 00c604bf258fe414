"""Reports to the stand-in controller until the federation is over. FAKE_PLAN says how it behaves.

Keys of FAKE_PLAN["learners"][name]: `exit` (with this status), `signal` (ends itself with it), `round` (only once that
many rounds are committed), `times` (how many starts behave so; all by default), `say` (printed before), `absent` (never
reports), `stubborn` (ignores SIGTERM and the end of the federation), `child` (starts a process of its own).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any


def note_pid(state_dir: Path, name: str, pid: int) -> None:
    with (state_dir.parents[1] / "fake-pids").open("a") as pids:
        pids.write(f"{name} {pid}\n")


def report(name: str) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"http://{os.environ['METISFL_CONTROLLER']}/join/{name}", timeout=2) as response:
            answer: dict[str, Any] = json.load(response)
    except OSError:
        return {"rounds": 0, "over": False}
    return answer


def misbehave(behaviour: dict[str, Any]) -> None:
    print(behaviour.get("say", ""), flush=True)
    if "signal" in behaviour:
        os.kill(os.getpid(), behaviour["signal"])
    sys.exit(behaviour.get("exit", 0))


def main() -> None:
    name = f"{os.environ['METISFL_LEARNER_GROUP']}-{os.environ['METISFL_LEARNER_ORDINAL']}"
    state_dir = Path(os.environ["METISFL_STATE_DIR"])
    behaviour = json.loads(os.environ["FAKE_PLAN"]).get("learners", {}).get(name, {})
    stubborn = behaviour.get("stubborn", False)
    signal.signal(signal.SIGTERM, signal.SIG_IGN if stubborn else lambda *_: sys.exit(0))
    # Whoever finds it started may signal it.
    note_pid(state_dir, name, os.getpid())
    with (state_dir / "starts").open("a") as starts:
        starts.write(f"{os.getpid()}\n")
    (state_dir / "environment.json").write_text(json.dumps(dict(os.environ)))
    start = len((state_dir / "starts").read_text().splitlines())
    if behaviour.get("child"):
        note_pid(state_dir, f"{name}-child", subprocess.Popen(["sleep", "600"]).pid)
    ill = ("exit" in behaviour or "signal" in behaviour) and start <= behaviour.get("times", 99)
    if ill and "round" not in behaviour:
        misbehave(behaviour)
    while True:
        answer = {"rounds": 0, "over": False} if behaviour.get("absent") else report(name)
        if ill and answer["rounds"] >= behaviour["round"]:
            misbehave(behaviour)
        if answer["over"] and not stubborn:
            return
        time.sleep(0.05)


main()
