from __future__ import annotations

from mailserver.net.sessions import Sessions


class Session:
    def __init__(self, registry: Sessions, account: int, fails: bool = False) -> None:
        self.registry, self.account, self.fails = registry, account, fails
        self.reason = ""
        registry.add(account, self)

    def end(self, reason: str) -> None:
        if self.fails:
            raise RuntimeError
        self.reason = reason
        self.registry.remove(self.account, self)  # as a connection that is lost at once would


def test_ends_all_sessions_of_an_account_and_no_other() -> None:
    registry = Sessions()
    mine = [Session(registry, 1) for _ in range(3)]
    other = Session(registry, 2)
    assert (registry.count(1), registry.count(2), registry.count(3)) == (3, 1, 0)
    assert registry.end(1, "disabled") == 3
    assert [session.reason for session in mine] == ["disabled"] * 3
    assert other.reason == ""
    assert registry.accounts() == (2,)
    assert registry.end(1, "disabled") == 0


def test_one_that_fails_keeps_no_other() -> None:
    registry = Sessions()
    sessions = [Session(registry, 1, fails=i == 1) for i in range(3)]
    registry.end(1, "removed")
    assert [session.reason for session in sessions] == ["removed", "", "removed"]


def test_removing_twice_is_harmless() -> None:
    registry = Sessions()
    session = Session(registry, 1)
    registry.remove(1, session)
    registry.remove(1, session)
    assert registry.accounts() == ()


def test_login_that_was_being_checked_meanwhile() -> None:
    registry = Sessions()
    mark = registry.mark()
    registry.end(1, "disabled")
    session = Session(Sessions(), 1)
    assert not registry.add(1, session, since=mark)
    assert registry.count(1) == 0
    assert registry.add(2, session, since=mark)
    assert registry.add(1, session, since=registry.mark())
    assert registry.add(1, session)


def test_endings_that_are_too_many_to_remember_count_as_all() -> None:
    registry = Sessions()
    mark = registry.mark()
    for _ in range(2000):
        registry.end(5, "disabled")
    assert not registry.add(1, Session(Sessions(), 1), since=mark)
