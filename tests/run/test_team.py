"""Which of several processes' ends is a trial's: judged by what each says, without processes."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpsearch.run import ranks, team
from hpsearch.run.parcel import VARIABLE
from hpsearch.run.place import Place
from hpsearch.run.process import Heard
from hpsearch.run.ranks import Whereabouts, environment, interface_to, launches, reserved_port
from hpsearch.run.team import MemberLost, Team
from hpsearch.run.wire import decode, encode
from hpsearch.study import trial as facts
from hpsearch.study.trial import Cause, Context, Ending, Launch, Measurement, Report, State

MEASURED = encode(Report(measurement=Measurement(1, {"loss": 1.0}, 5)))
CUT = "RuntimeError: [gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1"
HERE = Whereabouts("n1", "10.0.0.1")


def ended(state: State, reason: str, *, silent: bool = False) -> str:
    return encode(Report(ending=Ending(state, reason, 7, silent)))


def failed(reason: str) -> Heard:
    return Heard([MEASURED, ended(State.FAILED, reason)])


class First:
    """The slot of the first process, which says what it is told to."""

    def __init__(self, *heard: Heard, parting: tuple[str, ...] = ()) -> None:
        self.heard = list(heard)
        self.parting = list(parting)
        self.grace = 0.0
        self.done: list[str] = []
        self.launch: Launch | None = None
        self.over = False

    @property
    def busy(self) -> bool:
        return bool(self.heard)

    def start(self, launch: Launch) -> None:
        self.launch = launch

    def poll(self, timeout: float) -> Heard:
        return self.heard.pop(0) if self.heard else Heard([])

    def part(self) -> list[str]:
        self.done.append("part")
        return self.parting

    def kill(self) -> None:
        self.done.append("kill")


class Other:
    """A worker for another process, which says what it is told to."""

    def __init__(
        self, *said: Mapping[str, Any] | MemberLost, leaves: bool = True, cut_off: bool = False
    ) -> None:
        self.said = list(said)
        self.leaves = leaves
        self.cut_off = cut_off
        self.done: list[str] = []

    def where(self) -> Whereabouts:
        if self.said and isinstance(self.said[0], MemberLost) and str(self.said[0]) == "never came":
            raise self.said[0]
        return Whereabouts("n2", "10.0.0.2")

    def start(self, launch: Launch) -> None:
        self.done.append("start")
        self.launch = launch

    def hear(self) -> Mapping[str, Any] | None:
        said = self.said.pop(0) if self.said else None
        if isinstance(said, MemberLost):
            raise said
        return said

    def is_cut_off(self) -> bool:
        return self.cut_off

    def part(self) -> None:
        self.done.append("part")

    def end(self) -> None:
        self.done.append("end")

    def gone(self, seconds: float) -> bool:
        return self.leaves


def news(*lines: str, lost: str | None = None, cause: Cause = Cause.CRASHED, leaving: bool = False) -> Any:
    return {"lines": list(lines), "lost": lost, "cause": str(cause), "leaving": leaving}


@pytest.fixture(autouse=True)
def haste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(team, "SETTLING", 0.05)
    monkeypatch.setattr(team, "HASTE", 0.02)


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    return Launch("m", (), {}, Context(0, 1, 1, 10, 5, tmp_path), "loss", timeout=9.0, progress_timeout=3.0)


def verdict(launch: Launch, first: First, *others: Other) -> tuple[Heard, Ending | None]:
    made = Team(len(others) + 1, HERE, lambda rank: others[rank - 1], lambda: first)  # type: ignore[arg-type,return-value]
    made.start(launch)
    heard = made.poll(0.5)
    endings = [ending for line in heard.lines if (ending := decode(line).ending)]
    return heard, endings[0] if endings else None


@pytest.mark.parametrize("others_first", [False, True], ids=["the first says so first", "the other does"])
def test_a_process_that_was_killed_is_why_the_others_failed(launch: Launch, others_first: bool) -> None:
    killed = news(lost="its process was killed by signal 9 (SIGKILL)")
    first = First(*[Heard([])] * others_first, failed(CUT))
    heard, ending = verdict(launch, first, Other(news(ended(State.FAILED, CUT))), Other(killed))
    assert heard.lost == "rank 2: its process was killed by signal 9 (SIGKILL)"
    assert heard.cause is Cause.CRASHED
    assert ending is None, "a trial that is tried again has not ended"
    assert MEASURED in heard.lines
    assert first.done[-1] == "kill"


def test_where_nobody_knows_why_they_parted_the_attempt_is_lost(launch: Launch) -> None:
    heard, ending = verdict(launch, First(failed(CUT)), Other(news(ended(State.FAILED, CUT))))
    assert heard.lost == f"its processes lost each other; rank 0: {CUT}"
    assert ending is None


def test_where_a_node_is_lost_before_anybody_says_so_that_is_why_they_parted(launch: Launch) -> None:
    heard, _ = verdict(launch, First(failed(CUT)), Other(), Other(cut_off=True))
    assert (heard.lost, heard.cause) == ("rank 2: its node was lost", Cause.PREEMPTED)


NODE_LOST = MemberLost("its node was lost", Cause.PREEMPTED)


@pytest.mark.parametrize("when", ["while it trains", "before it starts"])
def test_a_place_of_which_a_node_is_lost_runs_no_other_trial_since_ray_must_look_for_all_of_it_anew(
    when: str, launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch.context.directory.parents[1].mkdir(parents=True, exist_ok=True)
    other = Other(NODE_LOST)
    if when == "before it starts":
        monkeypatch.setattr(other, "where", other.hear)
    first = First(*[Heard([])] * 3)
    place = Place(slot=lambda: Team(2, HERE, lambda rank: other, lambda: first))  # type: ignore[arg-type,return-value]
    place.relaunch({"launch": json.dumps(launch.to_json()), "by": [0, 1, 1]})
    result = place.step()
    assert result["parted"]
    assert not result["lost"], "it would be started again here"
    assert "rank 1: its node was lost" in result["why"]
    first.heard.clear()
    assert place.leaving


def test_a_place_whose_worker_was_killed_runs_the_next_attempt(launch: Launch) -> None:
    launch.context.directory.parents[1].mkdir(parents=True, exist_ok=True)
    others = [Other(MemberLost("its worker was lost")), Other()]
    first = First(*[Heard([])] * 3)
    place = Place(slot=lambda: Team(2, HERE, lambda rank: others.pop(0), lambda: first))  # type: ignore[arg-type,return-value]
    config = {"launch": json.dumps(launch.to_json()), "by": [0, 1, 1]}
    place.relaunch(config)
    assert place.step()["lost"] == "rank 1: its worker was lost"
    assert not place.leaving
    place.relaunch(config)
    assert others == []


def test_each_process_finds_the_code_that_was_sent_in_a_place_of_its_own(
    launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch.context.directory.parents[1].mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv(VARIABLE, json.dumps({"/job": "0"}))
    first, other = First(), Other()
    place = Place(slot=lambda: Team(2, HERE, lambda rank: other, lambda: first))  # type: ignore[arg-type,return-value]
    place.relaunch({"launch": json.dumps(replace(launch, python_path=("/job",)).to_json())})
    assert first.launch
    assert first.launch.python_path == (str(Path.cwd() / "0"),)
    assert other.launch.python_path == ("/job",), "whoever gets it looks in its own working directory"


def test_an_error_of_the_trainer_fails_the_trial_and_names_its_rank_unless_it_is_the_firsts(
    launch: Launch,
) -> None:
    wrong = "ValueError: no (m.py:1)"
    heard, ending = verdict(launch, First(failed(CUT)), Other(news(ended(State.FAILED, wrong))))
    assert ending == Ending(State.FAILED, f"rank 1: {wrong}")
    assert heard.lost is None
    _, ending = verdict(launch, First(failed(wrong)), Other(news(ended(State.FAILED, CUT))))
    assert ending
    assert ending.reason == wrong


def test_a_first_process_that_waits_for_a_dead_one_does_not_wait_for_ever(launch: Launch) -> None:
    first = First(*[Heard([])] * 10_000)
    heard, _ = verdict(launch, first, Other(MemberLost("its node was lost", Cause.PREEMPTED)))
    assert (heard.lost, heard.cause) == ("rank 1: its node was lost", Cause.PREEMPTED)


def test_where_a_workers_node_goes_away_the_trial_keeps_its_state(launch: Launch) -> None:
    first = First(*[Heard([])] * 9, parting=(MEASURED,))
    other = Other(news(leaving=True))
    heard, _ = verdict(launch, first, other)
    assert (heard.lost, heard.cause) == ("rank 1: its worker was preempted", Cause.PREEMPTED)
    assert heard.lines == [MEASURED]
    assert "part" in first.done
    assert other.done == ["end", "start", "part", "end"]


def test_the_first_ones_ending_is_the_trials_and_the_others_are_sent_home(launch: Launch) -> None:
    done = ended(State.COMPLETED, "reached step 10")
    other = Other(news(ended(State.FAILED, "loss never reported", silent=True)))
    heard, ending = verdict(launch, First(Heard([]), Heard([]), Heard([MEASURED, done])), other)
    assert heard.lost is None, "a silent process is none that failed"
    assert ending
    assert ending.state is State.COMPLETED
    assert other.done[-1] == "end"


def test_while_the_firsts_files_are_on_their_way_nothing_changes_its_ending(launch: Launch) -> None:
    first = First(Heard([]), Heard([ended(State.COMPLETED, "reached step 3")]))
    first.over = True
    heard, ending = verdict(launch, first, Other(NODE_LOST), Other(news(leaving=True)))
    assert heard.lost is None
    assert ending
    assert ending.state is State.COMPLETED


def test_a_worker_that_does_not_come_or_hangs_is_replaced(launch: Launch) -> None:
    workers = [Other(MemberLost("never came")), Other(leaves=False), Other()]
    first = First()
    made = Team(2, HERE, lambda rank: workers.pop(0), lambda: first)  # type: ignore[arg-type,return-value]
    with pytest.raises(MemberLost, match="rank 1: never came"):
        made.start(launch)
    made.start(launch)
    made.start(launch)
    assert workers == []


def test_each_process_is_told_which_it_is_and_where_the_first_is(launch: Launch) -> None:
    places = [
        Whereabouts("a", "10.0.0.1", "2"),
        Whereabouts("b", "10.0.0.2"),
        Whereabouts("a", "10.0.0.1", "0"),
    ]
    made = launches(launch, places, 5000)
    told = [environment(each.team) for each in made]
    assert [t["RANK"] for t in told] == ["0", "1", "2"]
    assert [t["LOCAL_RANK"] for t in told] == ["0", "0", "1"]
    assert [t["LOCAL_WORLD_SIZE"] for t in told] == ["2", "1", "2"]
    assert {(t["WORLD_SIZE"], t["MASTER_ADDR"], t["MASTER_PORT"]) for t in told} == {
        ("3", "10.0.0.1", "5000")
    }
    assert [t.get("CUDA_VISIBLE_DEVICES") for t in told] == ["2,0", None, "2,0"], "LOCAL_RANK is one's own"
    assert [each.timeout for each in made] == [9.0, None, None]
    assert [each.progress_timeout for each in made] == [3.0, 0.0, 0.0], "the others report nothing"
    assert Launch.from_json(made[2].to_json()) == made[2]


def test_processes_that_share_a_gpu_each_see_it(launch: Launch) -> None:
    made = launches(launch, [Whereabouts("a", "10.0.0.1", "0")] * 2, 5000)
    assert [each.team.devices for each in made] == [None, None]


def test_a_trial_of_one_process_is_told_nothing() -> None:
    assert environment(facts.Team()) == {}


def test_the_interface_is_that_of_the_way_to_the_first_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ranks.INTERFACES:
        monkeypatch.delenv(name, raising=False)
    assert interface_to("127.0.0.1") == "lo"
    assert interface_to("no address") == ""
    one = facts.Team(1, 2, address="127.0.0.1", port=1)
    assert environment(one)["GLOO_SOCKET_IFNAME"] == "lo"
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth7")
    assert "GLOO_SOCKET_IFNAME" not in environment(one), "the user knows better"


def test_a_reserved_port_is_nobody_elses_and_torch_can_listen_on_it() -> None:
    from torch.distributed import TCPStore

    with reserved_port() as port:
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("", port))
        store = TCPStore("127.0.0.1", port, 1, is_master=True)
        store.set("a", "b")
        assert store.get("a") == b"b"
