"""What one tenant can do to the alarms about another's spend."""

from types import SimpleNamespace

from tests.attacks.neighbours import TENANTS
from tollway.gateway.anomalies.detector import TICK_S, AnomalyDetector, Total
from tollway.gateway.anomalies.monitor import SpendMonitor
from tollway.gateway.observability.events import EventLog

HONEST, MALLORY = TENANTS
USUAL = {HONEST: 1.0, MALLORY: 1.0}


class Gateway:
    """A monitor of two tenants on one route, in virtual time."""

    def __init__(self) -> None:
        self.events = EventLog(lambda: 0.0)
        self.now_s = 0.0
        self.requests = dict.fromkeys(TENANTS, 0.0)
        self.detector = AnomalyDetector()
        self.monitor = SpendMonitor(
            self.detector,
            detects=True,
            reservations=SimpleNamespace(status=list),  # type: ignore[arg-type]
            events=self.events,
        )

    def run(self, hours: float, **volume: float) -> list[str]:
        """Continue with so many times the usual requests; return whom new events are about."""
        before = len(self.events.newest())
        for _ in range(int(hours * 3600 / TICK_S)):
            self.now_s += TICK_S
            for tenant in TENANTS:
                self.requests[tenant] += 10.0 * volume.get(tenant, 1.0)
            counts = {
                ("chat", "llm", tenant): SimpleNamespace(
                    total=lambda done=done: Total(done, done, done * 0.001)
                )
                for tenant, done in self.requests.items()
            }
            self.monitor.look(counts, self.now_s)  # type: ignore[arg-type]
        told = self.events.newest()
        return [
            event["about"]
            for event in told[: len(told) - before]
            if event["kind"] == "spend_anomaly"
        ]


def test_a_tenants_own_spike_does_not_hide_anothers() -> None:
    gateway = Gateway()
    assert gateway.run(48) == []
    assert gateway.run(0.1, mallory=50.0) == [f"tenant {MALLORY}"]
    assert gateway.run(0.1, mallory=50.0, honest=50.0) == [f"tenant {HONEST}"]
    assert gateway.run(0.1, mallory=50.0, honest=50.0) == []


def test_a_tenants_wild_spend_of_days_does_not_hide_anothers_anomaly() -> None:
    gateway = Gateway()
    gateway.run(24)
    for hour in range(48):
        gateway.run(1, mallory=100.0 if hour % 2 else 0.01)
    gateway.run(1)
    assert f"tenant {HONEST}" in gateway.run(0.2, honest=50.0)
