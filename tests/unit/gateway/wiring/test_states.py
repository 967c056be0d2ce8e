"""State goes on under its key while the settings that it depends on are the same."""

from tollway.gateway.wiring.states import States

KEY = ("backend", "a", "health")


def test_state_goes_on_while_its_identity_is_the_same() -> None:
    states = States()
    first = states.stage()
    health: list[int] = first.get(KEY, "http://a", list)
    first.commit()
    second = states.stage()
    assert second.get(KEY, "http://a", list) is health
    assert second.is_kept(KEY)
    third = states.stage()
    assert third.get(KEY, "http://b", list) is not health
    assert not third.is_kept(KEY)


def test_a_stage_that_is_not_committed_changes_nothing() -> None:
    states = States()
    first = states.stage()
    slots: list[str] = first.get(KEY, 1, list)
    first.commit()
    states.stage().get(KEY, 1, list, revise=lambda kept: kept.append("revised"))
    states.stage().get(KEY, 2, list, succeed=lambda new, old: old.append("handed over"))
    assert slots == []
    assert states.stage().get(KEY, 1, list) is slots


def test_at_the_commit_kept_state_is_revised_and_new_state_takes_over_from_the_old() -> None:
    states = States()
    first = states.stage()
    first.get(KEY, 1, lambda: ["learned"])
    first.commit()
    second = states.stage()
    kept: list[str] = second.get(KEY, 1, list, revise=lambda one: one.append("revised"))
    second.commit()
    assert kept == ["learned", "revised"]
    third = states.stage()
    new: list[str] = third.get(KEY, 2, list, succeed=lambda new, old: new.extend(old))
    assert new == []
    third.commit()
    assert new == ["learned", "revised"]


def test_state_that_no_plan_asks_for_is_dropped() -> None:
    states = States()
    first = states.stage()
    old: list[int] = first.get(KEY, 1, list)
    first.commit()
    states.stage().commit()
    assert states.stage().get(KEY, 1, list) is not old


def test_two_plans_of_one_stage_share_state() -> None:
    stage = States().stage()
    assert stage.get(KEY, 1, list) is stage.get(KEY, 1, list)
