"""Connection counts and the price of failed logins."""

from __future__ import annotations

from letterlock.policy.limits import LONGEST_DELAY_S, ConnectionLimits, FailureThrottle, canonical, network


def test_connection_limits_are_exact() -> None:
    limits = ConnectionLimits(3, 2, 1)
    assert limits.admit("192.0.2.1")
    assert limits.admit("::ffff:192.0.2.1")  # the same address
    assert not limits.admit("192.0.2.1")
    assert limits.admit("192.0.2.2")
    assert not limits.admit("192.0.2.3")
    limits.release("192.0.2.1")
    assert limits.admit("192.0.2.1")
    assert limits.enter("a")
    assert not limits.enter("a")
    limits.leave("a")
    assert limits.enter("a")


def test_delay_grows_and_fades() -> None:
    throttle = FailureThrottle()
    assert throttle.delay("u", "192.0.2.1", 0.0) == 0
    delays = []
    for _ in range(12):
        throttle.failed("u", "192.0.2.1", 0.0)
        delays.append(throttle.delay("u", "192.0.2.1", 0.0))
    assert delays[:2] == [0.0, 0.0]
    assert delays == sorted(delays)
    assert delays[-1] == LONGEST_DELAY_S
    assert throttle.delay("u", "192.0.2.1", 10_000.0) == 0


def test_an_attacker_does_not_slow_the_victims_own_clients() -> None:
    throttle = FailureThrottle()
    throttle.succeeded("victim", "192.0.2.1", 0.0)
    for n in range(50):
        throttle.failed("victim", f"198.51.100.{n}", 1.0)
    assert throttle.delay("victim", "198.51.100.200", 1.0) > 0
    assert throttle.delay("victim", "192.0.2.1", 1.0) == 0


def test_ipv6_failures_count_per_64() -> None:
    assert network("2001:db8::1") == network("2001:db8::ffff")
    assert network("2001:db8:0:1::1") != network("2001:db8::1")
    assert canonical("::ffff:192.0.2.1") == "192.0.2.1"
