"""What an outcome means for a recipient in the queue: gone, told of, or tried again.

Pure: the clock and chance come in. Whether a sender hears of it is as RFC 3461 §4.1 and §6 say; nobody hears of a
message that came from the null reverse-path, so no report begets another (RFC 5321 §4.5.5).
"""

from __future__ import annotations

from mailserver.protocols.smtp import dsn
from mailserver.protocols.smtp.dsn import Notify
from mailserver.sending.outcome import Delivered, Failed, Outcome
from mailserver.sending.retry import GiveUp, Policy, decide
from storage.queue import Again, Ended, Gone, Move, Said, Taken, TakenRecipient


def move(
    policy: Policy,
    taken: Taken,
    recipient: TakenRecipient,
    outcome: Outcome,
    *,
    now: float,
    jitter: float,
    reports_itself: bool = False,
) -> Move:
    """now: of the monotonic clock, as the moments of the move; jitter: 0 to 1.

    reports_itself: the server has DSN, and was told what is asked.
    """
    said = Said(outcome.code, outcome.enhanced, outcome.text, outcome.host)
    if isinstance(outcome, Delivered):
        relayed = not reports_itself and recipient.notify is not None and _wants(taken, recipient, Notify.SUCCESS)
        return Ended("relayed", said) if relayed else Gone()
    if not isinstance(outcome, Failed):
        may_notice = not recipient.told and _wants(taken, recipient, Notify.DELAY)
        decision = decide(
            policy,
            queued_at=taken.born,
            attempts=recipient.attempts,
            now=now,
            jitter=jitter,
            may_notice=may_notice,
        )
        if not isinstance(decision, GiveUp):
            act_by = _next_act(policy, taken.born, told=not may_notice or decision.notice)
            return Again(said, decision.at, act_by, decision.notice)
    return Ended("failed", said) if _wants(taken, recipient, Notify.FAILURE) else Gone()


def _wants(taken: Taken, recipient: TakenRecipient, event: Notify) -> bool:
    if not taken.reverse_path:
        return False
    return dsn.wants(None if recipient.notify is None else dsn.notify(recipient.notify), event)


def _next_act(policy: Policy, born: float, *, told: bool) -> float:
    """When the recipient needs attention next."""
    return born + (policy.give_up_seconds if told else min(policy.notice_seconds, policy.give_up_seconds))
