"""One federation's controller and learners, from their start to the end of the federation."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from metisfl.api import FederationDocument, FederationState, ModelDocument, RoundDocument
from metisfl.api.rounds import RoundLog, read_rounds
from metisfl.downloads import DownloadError
from metisfl.local.bundles import write_bundles
from metisfl.local.client import ControllerClient, UnreachableError
from metisfl.local.folder import RunFolder
from metisfl.local.outcome import shown_path
from metisfl.local.plan import CONTROLLER, Endpoints, Surroundings, controller_launch, learner_launches
from metisfl.local.processes import Launch
from metisfl.local.progress.display import Display, Snapshot
from metisfl.local.progress.words import plural
from metisfl.local.restarts import judge_controller, judge_evaluator, judge_learner
from metisfl.local.supervisor import Supervisor
from metisfl.spec import Federation


@dataclass(frozen=True)
class Limits:
    """How long to wait for what, in seconds."""

    startup: float = 300
    """For the controller to listen, and then for enough learners to be ready."""

    silence: float = 60
    """For a controller that runs and does not answer."""

    farewell: float = 30
    """For learners to end once the federation has."""

    stop: float = 10
    """For a process to end after SIGTERM."""

    poll: float = 0.5


class RunFailedError(Exception):
    """The run cannot go on; `process` names whose log tells more."""

    def __init__(self, message: str, process: str) -> None:
        super().__init__(message)
        self.process = process


@dataclass(frozen=True)
class Findings:
    """What the controller had to say when the run ended."""

    document: FederationDocument
    rounds: Sequence[RoundDocument]
    models: Sequence[ModelDocument]
    model: Path | None


class Session:
    """Drives one run; `supervisor` answers for the processes."""

    def __init__(
        self,
        federation: Federation,
        folder: RunFolder,
        uid: str,
        surroundings: Surroundings,
        supervisor: Supervisor,
        display: Display,
        limits: Limits,
    ) -> None:
        self._federation = federation
        self._folder = folder
        self._uid = uid
        self._surroundings = surroundings
        self._supervisor = supervisor
        self._display = display
        self._limits = limits
        self._client: ControllerClient | None = None
        self._learners: list[str] = []
        self._undelivered = ""
        self.latest: FederationDocument | None = None
        """What the controller said last."""

    def start(self) -> None:
        """Start the controller, and the learners once it listens."""
        self._supervisor.start(self._controller_launch(None), judge_controller)
        endpoints = self._await_endpoints()
        self._supervisor.replace(self._controller_launch(endpoints))
        self._client = ControllerClient(endpoints.http, self._folder.token.read_text())
        for launch in learner_launches(self._federation, self._folder, self._surroundings, endpoints):
            self._folder.learner_state(launch.name).mkdir(parents=True, exist_ok=True)
            evaluates = self._evaluates(launch.name)
            self._supervisor.start(launch, judge_evaluator if evaluates else judge_learner)
            self._learners.append(launch.name)
        bundles = write_bundles(self._federation, self._folder, self._uid, endpoints.grpc)
        for group, file in bundles.items():
            self._display.note(f"group {group} runs elsewhere: metisfl join {shlex.quote(shown_path(file))}")

    def follow(self) -> None:
        """Keep the processes alive and show progress until the federation has come to its end.

        Raises ProcessFailedError or RunFailedError when it cannot.
        """
        waiting_since: float | None = time.monotonic()
        heard = time.monotonic()
        log = RoundLog()
        while True:
            # Seen before the document is read: a learner that ended because the federation did is then never judged.
            ended = self._supervisor.ended()
            document = self._document()
            if document is not None:
                heard = time.monotonic()
                rounds = self._rounds(document, log)
                self._display.update(Snapshot(document, rounds, self._supervisor.restarts(), datetime.now(UTC)))
                self._tell_deliveries(document)
                if document.state.final:
                    return
                if document.state is not FederationState.WAITING_FOR_LEARNERS:
                    waiting_since = None
                self._judge_waiting(document, waiting_since)
            self._supervisor.judge(name for name in ended if document is not None or name == CONTROLLER)
            self._supervisor.restart_due()
            if time.monotonic() - heard > self._limits.silence:
                raise RunFailedError(
                    f"the controller has not answered for {plural(round(self._limits.silence), 'second')}", CONTROLLER
                )
            time.sleep(self._limits.poll)

    def _tell_deliveries(self, document: FederationDocument) -> None:
        """Say once what keeps models from spec.output; the run goes on."""
        output = document.output
        trouble = output.message if output else ""
        if output and trouble and trouble != self._undelivered:
            self._display.note(f"models do not reach {output.url}: {trouble}")
        self._undelivered = trouble

    def bid_farewell(self) -> None:
        """The federation has ended: learners end by themselves, which is waited for."""
        self._supervisor.release(self._learners)
        deadline = time.monotonic() + self._limits.farewell
        while None in (codes := self._supervisor.exit_codes(self._learners)).values() and time.monotonic() < deadline:
            time.sleep(self._limits.poll / 5)
        for name, code in codes.items():
            if code is None:
                self._display.note(f"{name} did not end by itself and is stopped")
            elif code != 0:
                self._display.note(f"{name} ended with exit status {code}; see {self._supervisor.log(name)}")

    def collect(self) -> Findings | None:
        """Everything the controller knows, and the newest model; None when it does not answer."""
        if self._client is None:
            return None
        try:
            document, models = self._client.federation(), self._client.models()
            rounds = read_rounds(self._client.rounds)
        except UnreachableError:
            return None
        return Findings(document, rounds, models, self._save_model() if document.global_model else None)

    def close(self) -> None:
        """No more questions to the controller."""
        if self._client is not None:
            self._client.close()

    def _save_model(self) -> Path | None:
        assert self._client is not None
        try:
            self._client.save_latest_model(self._folder.model)
        except (UnreachableError, DownloadError, OSError) as error:
            self._display.note(f"the model could not be saved: {error}")
            return None
        return self._folder.model

    def _controller_launch(self, endpoints: Endpoints | None) -> Launch:
        return controller_launch(self._federation, self._folder, self._surroundings, self._uid, endpoints)

    def _await_endpoints(self) -> Endpoints:
        deadline = time.monotonic() + self._limits.startup
        while (endpoints := self._endpoints()) is None:
            self._supervisor.judge(self._supervisor.ended())
            self._supervisor.restart_due()
            if time.monotonic() > deadline:
                raise RunFailedError(
                    f"the controller did not listen within {plural(round(self._limits.startup), 'second')}", CONTROLLER
                )
            time.sleep(self._limits.poll / 5)
        return endpoints

    def _endpoints(self) -> Endpoints | None:
        try:
            document = json.loads(self._folder.endpoints.read_text(encoding="utf-8"))
            return Endpoints(grpc=document["grpc"], http=document["http"])
        except (FileNotFoundError, ValueError, KeyError):
            return None

    def _document(self) -> FederationDocument | None:
        assert self._client is not None
        try:
            self.latest = self._client.federation()
        except UnreachableError:
            return None
        return self.latest

    def _evaluates(self, learner: str) -> bool:
        """Whether this learner is of a group that evaluates only."""
        return learner.rpartition("-")[0] in {group.name for group in self._federation.spec.evaluator_groups}

    def _rounds(self, document: FederationDocument, log: RoundLog) -> Sequence[RoundDocument]:
        assert self._client is not None
        try:
            return log.follow(document, self._client.rounds)
        except UnreachableError:
            return log.known

    def _judge_waiting(self, document: FederationDocument, since: float | None) -> None:
        if since is None or time.monotonic() - since <= self._limits.startup:
            return
        ready = {learner.id for learner in document.learners if learner.connected}
        missing = [name for name in self._learners if name not in ready and not self._evaluates(name)]
        there = {learner.group for learner in document.learners if learner.connected}
        absent = [g.name for g in self._federation.spec.learner_groups if g.external and g.name not in there]
        missing += [f"everybody of {name}" for name in absent]
        raise RunFailedError(
            f"not enough learners were ready within {plural(round(self._limits.startup), 'second')}; "
            f"missing: {', '.join(missing) or 'none, see the controller'}",
            next((name for name in missing if name in self._learners), CONTROLLER),
        )
