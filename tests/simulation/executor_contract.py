"""What an Executor does, whichever it is: the simulation's in memory and the local one with real processes are held to the same words.

A test file per executor subclasses the suites and gives a `place` where processes do what a test says.
"""

from __future__ import annotations

from typing import Literal, Protocol

import pytest

from abruzzi.contracts.stage import StageSpec
from abruzzi.engine.ports import Executor, SpecConflict
from abruzzi.engine.view import Phase, Seen

Manner = Literal["works", "deaf"]
"""`works`: until it is told to end; saves and exits with 143 when it is stopped. `deaf`: for ever, and ignores the stop."""


class Place(Protocol):
    executor: Executor

    def renew(self) -> None:
        """Another executor object: the controller was replaced."""
        ...

    def spec(self, manner: Manner = "works", *, exit_code: int = 0) -> StageSpec:
        """Of a new attempt; `exit_code` is what it ends with when it is told to end."""
        ...

    def finish(self, spec: StageSpec) -> None:
        """Tell the process to end."""
        ...

    async def kill(self, spec: StageSpec) -> None:
        """SIGKILL by a stranger."""
        ...

    def starts(self, spec: StageSpec) -> int:
        """How often a process of this attempt was started."""
        ...

    async def until_working(self, spec: StageSpec) -> Seen:
        """It runs and has got so far that it can hear a stop."""
        ...

    async def until_exited(self, spec: StageSpec) -> Seen: ...

    async def look(self, spec: StageSpec) -> Seen: ...


class BeatingPlace(Place, Protocol):
    """Where the executor hears the ranks themselves."""

    def beat(self, spec: StageSpec, step: int) -> None:
        """The process says where it is, in phase `train`."""
        ...


class LifeContract:
    """From the creation to the exit code."""

    async def test_an_attempt_that_nobody_created_is_gone(self, place: Place) -> None:
        spec = place.spec()
        await place.executor.create(spec)
        seen = await place.executor.observe(["nothing0000-work-1", spec.attempt_id])
        assert set(seen) == {"nothing0000-work-1", spec.attempt_id}
        assert seen["nothing0000-work-1"].phase is Phase.GONE
        assert await place.executor.observe([]) == {}

    async def test_what_was_created_exists_at_once_and_is_listed(self, place: Place) -> None:
        spec = place.spec()
        assert await place.executor.list_attempts() == []
        await place.executor.create(spec)
        assert (await place.look(spec)).phase in (Phase.PENDING, Phase.RUNNING)
        assert await place.executor.list_attempts() == [spec.attempt_id]

    async def test_the_exit_code_is_the_processs_and_stays(self, place: Place) -> None:
        """Several at the same time: on a real node each takes seconds."""
        specs = {code: place.spec(exit_code=code) for code in (0, 1, 64, 65, 75, 76)}
        for spec in specs.values():
            await place.executor.create(spec)
        working = {code: await place.until_working(spec) for code, spec in specs.items()}
        assert {(seen.phase, seen.exit_code) for seen in working.values()} == {(Phase.RUNNING, None)}
        for spec in specs.values():
            place.finish(spec)
        for code, spec in specs.items():
            seen = await place.until_exited(spec)
            assert (seen.exit_code, seen.out_of_memory, seen.node_lost) == (code, False, False)
            assert seen.node
            assert seen.node == working[code].node
        place.renew()
        for code, spec in specs.items():
            again = await place.look(spec)
            assert (again.phase, again.exit_code) == (Phase.EXITED, code)

    async def test_creating_again_starts_nothing_by_whomever(self, place: Place) -> None:
        spec = place.spec()
        await place.executor.create(spec)
        await place.executor.create(spec)
        place.renew()
        await place.executor.create(spec)
        await place.until_working(spec)
        place.finish(spec)
        await place.until_exited(spec)
        await place.executor.create(spec)
        assert (await place.look(spec)).phase is Phase.EXITED
        assert place.starts(spec) == 1

    async def test_another_spec_under_the_same_name_is_a_conflict_and_harms_nothing(self, place: Place) -> None:
        spec = place.spec()
        await place.executor.create(spec)
        await place.until_working(spec)
        with pytest.raises(SpecConflict):
            await place.executor.create(spec.model_copy(update={"seed": 7}))
        assert (await place.look(spec)).phase is Phase.RUNNING
        place.finish(spec)
        assert (await place.until_exited(spec)).exit_code == 0

    async def test_a_new_executor_sees_lists_and_stops_what_the_old_one_started(self, place: Place) -> None:
        spec = place.spec()
        await place.executor.create(spec)
        await place.until_working(spec)
        place.renew()
        assert (await place.look(spec)).phase is Phase.RUNNING
        assert await place.executor.list_attempts() == [spec.attempt_id]
        await place.executor.stop(spec.attempt_id, grace_seconds=60)
        assert (await place.until_exited(spec)).exit_code == 143
        assert place.starts(spec) == 1

    @pytest.mark.parametrize("replaced", [False, True], ids=["same executor", "new executor"])
    async def test_a_kill_from_outside_is_137_and_no_guess_of_memory_or_node(
        self, place: Place, replaced: bool
    ) -> None:
        spec = place.spec()
        await place.executor.create(spec)
        await place.until_working(spec)
        await place.kill(spec)
        if replaced:
            place.renew()
        seen = await place.until_exited(spec)
        assert (seen.exit_code, seen.out_of_memory, seen.node_lost) == (137, False, False)


class RanksContract:
    """Of executors that see the ranks themselves. On a cluster heartbeats reach the database over HTTP, and stacks come with the log."""

    async def test_the_step_of_each_rank_is_seen_and_outlives_the_process(self, place: BeatingPlace) -> None:
        spec = place.spec()
        await place.executor.create(spec)
        await place.until_working(spec)
        place.beat(spec, 3)
        place.beat(spec, 4)
        beat = (await place.look(spec)).beats[0]
        assert (beat.step, beat.phase) == (4, "train")
        place.finish(spec)
        assert (await place.until_exited(spec)).beats[0].step == 4

    async def test_stacks_are_ready_once_asked_for_and_the_process_lives_on(self, place: Place) -> None:
        spec = place.spec()
        await place.executor.dump_stacks(spec.attempt_id, 0)
        await place.executor.create(spec)
        assert not (await place.until_working(spec)).stacks_ready
        await place.executor.dump_stacks(spec.attempt_id, 0)
        seen = await place.look(spec)
        assert (seen.phase, seen.stacks_ready) == (Phase.RUNNING, True)
        place.finish(spec)
        assert (await place.until_exited(spec)).exit_code == 0


class EndContract:
    """Stop and remove."""

    async def test_a_stop_lets_it_save_however_often_it_is_asked(self, place: Place) -> None:
        spec = place.spec()
        await place.executor.create(spec)
        await place.until_working(spec)
        await place.executor.stop(spec.attempt_id, grace_seconds=60)
        await place.executor.stop(spec.attempt_id, grace_seconds=60)
        seen = await place.until_exited(spec)
        assert (seen.exit_code, seen.out_of_memory) == (143, False)

    async def test_a_stop_before_it_works_ends_it_too(self, place: Place) -> None:
        spec = place.spec()
        await place.executor.create(spec)
        await place.executor.stop(spec.attempt_id, grace_seconds=60)
        assert (await place.until_exited(spec)).exit_code == 143

    async def test_what_does_not_listen_is_killed_after_the_grace(self, place: Place) -> None:
        spec = place.spec("deaf")
        await place.executor.create(spec)
        await place.until_working(spec)
        await place.executor.stop(spec.attempt_id, grace_seconds=0.2)
        seen = await place.until_exited(spec)
        assert (seen.exit_code, seen.out_of_memory) == (137, False)

    @pytest.mark.parametrize("graces", [(600.0, 0.2), (0.2, 600.0)], ids=["shortened", "never prolonged"])
    async def test_of_several_stops_the_earliest_end_counts(self, place: Place, graces: tuple[float, float]) -> None:
        spec = place.spec("deaf")
        await place.executor.create(spec)
        await place.until_working(spec)
        for grace in graces:
            await place.executor.stop(spec.attempt_id, grace_seconds=grace)
        assert (await place.until_exited(spec)).exit_code == 137

    async def test_a_stop_of_what_is_not_there_or_has_ended_changes_nothing(self, place: Place) -> None:
        spec = place.spec(exit_code=65)
        await place.executor.stop(spec.attempt_id, grace_seconds=0)
        assert (await place.look(spec)).phase is Phase.GONE
        await place.executor.create(spec)
        await place.until_working(spec)
        place.finish(spec)
        await place.until_exited(spec)
        await place.executor.stop(spec.attempt_id, grace_seconds=0)
        assert (await place.look(spec)).exit_code == 65
        await place.executor.remove(spec.attempt_id)
        await place.executor.stop(spec.attempt_id, grace_seconds=0)
        assert (await place.look(spec)).phase is Phase.GONE

    async def test_what_was_removed_is_gone_for_everybody_and_never_comes_back(self, place: Place) -> None:
        spec = place.spec()
        await place.executor.create(spec)
        await place.until_working(spec)
        place.finish(spec)
        await place.until_exited(spec)
        await place.executor.remove(spec.attempt_id)
        await place.executor.remove(spec.attempt_id)
        place.renew()
        assert (await place.look(spec)).phase is Phase.GONE
        assert await place.executor.list_attempts() == []
        await place.executor.create(spec)
        await place.executor.create(spec.model_copy(update={"seed": 7}))
        assert (await place.look(spec)).phase is Phase.GONE
        assert place.starts(spec) == 1

    async def test_removing_what_lives_ends_it_first(self, place: Place) -> None:
        spec = place.spec("deaf")
        await place.executor.create(spec)
        await place.until_working(spec)
        await place.executor.remove(spec.attempt_id)
        assert (await place.look(spec)).phase is Phase.GONE
        assert await place.executor.list_attempts() == []

    async def test_a_create_that_comes_after_the_removal_starts_nothing_even_if_nothing_was_there(
        self, place: Place
    ) -> None:
        spec = place.spec()
        await place.executor.remove(spec.attempt_id)
        place.renew()
        await place.executor.create(spec)
        assert (await place.look(spec)).phase is Phase.GONE
        assert await place.executor.list_attempts() == []
        assert place.starts(spec) == 0
