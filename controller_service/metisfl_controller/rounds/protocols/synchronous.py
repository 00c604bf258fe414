"""The Synchronous protocol: everybody trains from the same version, and the round closes with a quorum of them.

    needed = max(m, participants − overSelect)        quorum = max(m, ⌈quorumPercent/100 · needed⌉)

with m the updates that the aggregation rule cannot do without, such as 2f + 3 for Krum, else 1.

The round closes as soon as the needed number has delivered (Bonawitz et al. 2019, arXiv 1902.01046, section 2.2, asks
for more devices than it needs), or a quorum has and nobody is left to wait for, or the deadline has passed.
"""

from __future__ import annotations

from collections.abc import Set

from metisfl_controller.rounds.learners import by_number
from metisfl_controller.rounds.participation import OpenRound, Standing
from metisfl_controller.rounds.plan import Plan
from metisfl_controller.rounds.protocols.protocol import AskAgain
from metisfl_controller.rounds.training import Close, GiveUp, Step
from metisfl_controller.rounds.work import Work


class Synchronous:
    """Waits for the needed number until the deadline, then for a quorum, over `max_attempts` deadlines."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def open(self, version: int, ready: Set[str], now: float) -> OpenRound:
        return OpenRound(
            number=version + 1,
            base_version=version,
            quorum_percent=self.plan.quorum_percent,
            started_at=now,
            deadline_at=now + self.plan.round_deadline,
            over_select=self.plan.over_select,
            min_updates=self.plan.min_updates,
        )

    def admits(self, open_round: OpenRound, learner: str) -> bool:
        """Who has a part and has not delivered gets it again; newcomers wait for the next round or attempt."""
        participant = open_round.participants.get(learner)
        return participant is not None and participant.standing in (Standing.LOST, Standing.PENDING)

    def steps(self, learner: str) -> int | None:
        return None

    def delivered(self, learner: str, work: Work) -> None:
        pass

    def next_step(self, open_round: OpenRound, ready: Set[str], now: float) -> Step | AskAgain | None:
        late = now >= open_round.deadline_at
        if open_round.has_enough or (open_round.has_quorum and (open_round.all_reported or late)):
            return Close()
        if open_round.waits and not late:
            return None
        # The deadline has passed, or no participant is left to wait for: newcomers may still save the round.
        newcomers = ready - open_round.participants.keys()
        if open_round.attempt < self.plan.max_attempts and (newcomers or (late and not open_round.hopeless)):
            return self._ask_again(open_round, newcomers, ready, now)
        if late or open_round.hopeless:
            return GiveUp("QuorumNotReached", self._quorum_message(open_round))
        return None

    def _ask_again(self, open_round: OpenRound, newcomers: Set[str], ready: Set[str], now: float) -> AskAgain:
        deadline_at = now + self.plan.round_deadline
        if open_round.lacks_only_released:
            # They do not count any more, so no others have to outnumber them.
            return AskAgain(frozenset(), deadline_at, candidates=newcomers)
        idle = ready & set(open_round.having(Standing.LOST))
        return AskAgain(newcomers | idle, deadline_at)

    def _quorum_message(self, failed: OpenRound) -> str:
        done = failed.having(Standing.DONE)
        missing = by_number(set(failed.participants) - set(done))
        return (
            f"round {failed.number}: {len(done)} of {len(failed.participants)} learners delivered in "
            f"{failed.attempt} attempts of {self.plan.round_deadline:g} s, {failed.quorum} are needed; "
            f"missing: {', '.join(missing)}"
        )
