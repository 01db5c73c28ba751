"""What nodes see of a study, and what is said of those that see too little or run something else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hpsearch.errors import ServiceUnavailable, UsageError
from hpsearch.run import sight
from hpsearch.run.sight import Question, look
from hpsearch.spec.model import Program
from hpsearch.study import storage


@pytest.fixture
def question(tmp_path: Path) -> Question:
    (tmp_path / "study").mkdir()
    (tmp_path / "study/.survey-1").write_text(".survey-1")
    (tmp_path / "task.py").write_text("import part\n")
    (tmp_path / "part.py").write_text("x = 1\n")
    return Question(str(tmp_path / "study"), ".survey-1", "task", Program(), (str(tmp_path),))


def elsewhere(question: Question, place: Path) -> Question:
    """As a node asks itself on whose disk nothing of it is."""
    return replace(question, storage=str(place / "study"), python_path=(str(place),))


def test_a_node_that_sees_all_is_content(question: Question) -> None:
    here, there = look(question, "", 0), look(question, "n1", 1)
    sight.require_same_software(here, [there])
    sight.require_shared(question, [there])
    assert set(here.code) == {"task.py", "part.py"}
    assert sight.without_code(here, [there]) == []


def test_nodes_that_do_not_see_the_study_are_named(question: Question, tmp_path: Path) -> None:
    blind = look(elsewhere(question, tmp_path / "away"), "n2", 2)
    with pytest.raises(UsageError, match=r"1 of 2 other nodes do not see .*/study, .*: n2") as caught:
        sight.require_shared(question, [look(question, "n1", 1), blind])
    assert "--home" in str(caught.value.hint)


def test_nodes_that_do_not_reach_the_bucket_are_named_with_their_reason(
    question: Question, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = replace(question, storage=bucket)
    storage.at(bucket).write(asked.note, asked.note.encode())
    seeing = look(asked, "n1", 1)
    sight.require_shared(asked, [seeing])
    blind = look(replace(asked, storage=bucket.replace("s3://", "s3://no-")), "n2", 2)
    with pytest.raises(
        UsageError, match=r"1 of 2 other nodes do not see s3://.*: n2 \(not found: "
    ) as caught:
        sight.require_shared(asked, [seeing, blind])
    assert "credentials" in str(caught.value.hint)


def test_where_the_driver_itself_can_keep_nothing_any_more_that_is_69_and_no_bug(tmp_path: Path) -> None:
    from hpsearch.run import survey

    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ServiceUnavailable, match=r"cannot keep their files in .*/file: Not a directory"),
        survey._note(str(tmp_path / "file"), 2),
    ):
        pytest.fail("nobody could read it")


def test_another_directory_of_the_same_name_is_not_the_studys(question: Question, tmp_path: Path) -> None:
    """It holds a note of its own, or its answer arrives on a disk that this machine does not see."""
    other = tmp_path / "other"
    (other / "study").mkdir(parents=True)
    assert look(elsewhere(question, other), "n1", 1).answer == ""
    (other / "study/.survey-1").write_text(".survey-1")
    copied = look(elsewhere(question, other), "n1", 1)
    assert copied.answer
    with pytest.raises(UsageError, match="1 of 1 other nodes"):
        sight.require_shared(question, [copied])


def test_nodes_without_the_trainer_or_with_another_one_need_it(question: Question, tmp_path: Path) -> None:
    here = look(question, "", 0)
    away = tmp_path / "away"
    away.mkdir()
    assert sight.without_code(here, [look(elsewhere(question, away), "n1", 1)]) == ["n1"]
    (away / "task.py").write_text("import part\n")
    (away / "part.py").write_text("x = 2\n")
    assert sight.without_code(here, [look(elsewhere(question, away), "n1", 1)]) == ["n1"]
    command = replace(question, program=Program(command=("./train.sh",)))
    assert not look(command, "n1", 1).command


def test_a_command_that_is_not_installed_on_a_node_is_refused_and_a_file_of_ones_own_is_not(
    question: Question, tmp_path: Path
) -> None:
    (tmp_path / "train.sh").write_text("#!/bin/sh\n")
    (tmp_path / "train.sh").chmod(0o755)
    away = elsewhere(question, tmp_path / "away")
    for word, refused in (("no-such-program", True), ("./train.sh", False), ("sh", False)):
        node = look(replace(away, program=Program(command=(word,))), "n1", 1)
        asked = replace(question, program=Program(command=(word,)))
        if refused:
            with pytest.raises(UsageError, match="command 'no-such-program' cannot be found on n1"):
                sight.require_command(asked, [node])
        else:
            sight.require_command(asked, [node])


@pytest.mark.parametrize("name", ["python", "ray", "hpsearch"])
def test_a_node_with_another_version_is_told_with_both(question: Question, name: str) -> None:
    here = look(question, "", 0)
    other = replace(here, node="n1", versions={**here.versions, name: "0.0.1"})
    with pytest.raises(UsageError, match=rf"node n1 has {name} 0\.0\.1, the driver {here.versions[name]}"):
        sight.require_same_software(here, [other])


def test_other_code_of_the_same_version_of_hpsearch_is_told(question: Question) -> None:
    here = look(question, "", 0)
    with pytest.raises(UsageError, match=r"node n1 has hpsearch \S+ \(ffffffffffff\), the driver \S+ \("):
        sight.require_same_software(here, [replace(here, node="n1", own="f" * 64)])


def test_many_nodes_are_named_in_part() -> None:
    assert sight.named([f"n{n}" for n in range(9)]) == "n0, n1, n2, n3, n4 and 4 more"


def test_an_autoscalers_status_says_whether_nodes_may_come() -> None:
    def status(types: object) -> bytes:
        return json.dumps({"autoscaler_report": {"node_type_mapping": types}}).encode()

    assert not sight.tells_of_growth(status({"ab12": "node_ab12", "cd34": "node_cd34"}))
    assert sight.tells_of_growth(status({"10.0.0.1": "ray.head.default"}))
    # Where it cannot be told, nodes are waited for.
    for told in (None, b"", b"{}", b"[]", b"torn", status({}), status(None)):
        assert sight.tells_of_growth(told)
