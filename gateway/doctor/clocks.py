"""Compares this machine's clock with others: windows of budgets begin by it, and keys end by it."""

from collections.abc import Mapping

from tollway.gateway.doctor.finding import Finding, ok, warning

APART_S = 2.0  # an HTTP date has whole seconds, and a reply takes a while


def compared(offsets_s: Mapping[str, float]) -> Finding:
    """Return whether this clock agrees with most others.

    `offsets_s`: by whose clock it is, how far that one is ahead of this one, in seconds.
    """
    if not offsets_s:
        return ok("clock", "no other clock was seen to compare it with")
    ordered = sorted(offsets_s.items(), key=lambda pair: pair[1])
    whose, middle_s = ordered[len(ordered) // 2]
    apart = [name for name, offset_s in ordered if abs(offset_s - middle_s) > APART_S]
    if abs(middle_s) > APART_S:
        seen = f"{abs(middle_s):.1f} s {'behind' if middle_s > 0 else 'ahead of'} that of {whose}"
        return warning("clock", seen, "run an NTP client here; timedatectl shows its state")
    if apart:
        seen = f"agrees with most, but not with {', '.join(apart)}"
        return warning("clock", seen, "set the clocks there, if they are yours")
    return ok("clock", f"within {APART_S:g} s of {', '.join(name for name, _ in ordered)}")
