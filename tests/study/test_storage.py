"""Where trials' files may lie: what is refused and why, and a real S3 service that keeps what it is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from hpsearch.errors import ServiceUnavailable, UsageError
from hpsearch.study import storage
from hpsearch.study.storage import Bucket, Folder


def test_a_path_is_absolute_and_a_url_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.parse("shared/files") == str(tmp_path / "shared/files")
    assert storage.parse(f"file://{tmp_path}/x") == str(tmp_path / "x")
    assert storage.parse("~/x") == str(Path.home() / "x")
    assert storage.parse("s3://bucket/sweeps/") == "s3://bucket/sweeps"
    assert [storage.is_url(place) for place in ("/a", "s3://b")] == [False, True]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no place"),
        ("s3://", "names no place .*s3://bucket/folder"),
        ("s3:/bucket/x", "is neither a path nor a URL .*two slashes"),
        ("memory://x", "is the memory of one process"),
        ("simplecache::s3://bucket/x", "is a chain of URLs"),
        ("sftp://me:geheim@host/x", "holds a password"),
        ("s3://ME:geheim/geheim@bucket/x", "holds a password"),
    ],
)
def test_what_cannot_be_storage_is_refused_with_a_way_out(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        storage.parse(text)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("s4://bucket", r"is of no kind that is known \(s4\)"),
        ("gs://bucket/x", r"needs a package that is not installed .*pip install 'hpsearch\[gcs\]'"),
    ],
)
def test_what_nobody_here_can_reach_is_refused_where_it_is_used(text: str, said: str) -> None:
    assert storage.parse(text) == text, "a laptop may hand over what the cluster reaches"
    with pytest.raises(UsageError, match=said):
        storage.require(text)


def test_a_path_for_another_machine_is_whole() -> None:
    assert storage.parse_elsewhere("/shared/x") == "/shared/x"
    with pytest.raises(UsageError, match="'shared/x' is relative to a directory of this machine"):
        storage.parse_elsewhere("shared/x")


def test_namesakes_in_one_storage_do_not_meet() -> None:
    first, second = (storage.folder_of("s3://b/x", "mpg", uid) for uid in ("1a2b3c4d5e6f", "9a2b3c4d5e6f"))
    assert (first, second) == ("s3://b/x/mpg-1a2b3c4d", "s3://b/x/mpg-9a2b3c4d")


def test_a_bucket_gives_back_what_it_was_given(bucket: str, tmp_path: Path) -> None:
    there = Bucket(bucket)
    assert there.keys() == set()
    there.write("trials/0000/checkpoints/a.pt", memoryview(b"0123"))
    (tmp_path / "log").write_bytes(b"printed")
    there.put("trials/0000/attempt-1/output.log", tmp_path / "log")
    assert there.read("trials/0000/checkpoints/a.pt") == b"0123"
    assert there.keys("trials/0000") == {
        "trials/0000/checkpoints/a.pt",
        "trials/0000/attempt-1/output.log",
    }
    there.remove(["trials/0000/checkpoints/a.pt", "trials/0000/never.pt"])
    assert there.keys() == {"trials/0000/attempt-1/output.log"}
    with pytest.raises(FileNotFoundError, match=r"not found: .*a\.pt"):
        there.read("trials/0000/checkpoints/a.pt")


def test_a_write_that_arrives_cut_is_an_error(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    system, _ = fsspec.url_to_fs(bucket, use_listings_cache=False)  # the one that a Bucket uses
    whole = system._pipe_file
    monkeypatch.setattr(system, "_pipe_file", lambda path, data: whole(path, data[: len(data) // 2]))
    with pytest.raises(OSError, match="2 of 4 bytes have arrived"):
        Bucket(bucket).write("a", b"0123")


def test_a_place_that_takes_files_is_left_as_it_was(bucket: str, tmp_path: Path) -> None:
    storage.require(bucket)
    storage.require(str(tmp_path / "new/folder"))
    assert Bucket(bucket).keys() == set()
    assert list((tmp_path / "new/folder").iterdir()) == []
    assert (tmp_path / "new/folder").stat().st_mode & 0o777 == 0o700


def test_a_place_that_takes_none_says_why(bucket: str, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="trials cannot keep their files in s3://no-such-bucket/x: not found"
    ):
        storage.require("s3://no-such-bucket/x")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="/file/below: Not a directory"):
        storage.require(str(tmp_path / "file/below"))


def test_a_service_that_does_not_answer_is_69(unused_port: int) -> None:
    with pytest.raises(ServiceUnavailable, match="Cannot connect") as caught:
        storage.require(f"http://127.0.0.1:{unused_port}/x")
    assert caught.value.exit_code == 69


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def test_no_link_is_followed_out_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("geheim")
    (tmp_path / "place").mkdir()
    (tmp_path / "place/note").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic links"):
        Folder(tmp_path / "place").read("note")


def test_a_directory_that_a_study_had_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="/mount/s-1a2b3c4d: No such file or directory"):
        storage.require(str(tmp_path / "mount/s-1a2b3c4d"), new=False)
    assert not (tmp_path / "mount").exists(), "what is not mounted is not made"


def test_an_object_is_known_by_its_key(bucket: str) -> None:
    there = Bucket(bucket)
    there.write("a/b", b"x")
    assert [there.holds(key) for key in ("a/b", "a/c")] == [True, False]


def test_a_service_that_never_answers_is_given_up_and_said_to_be_one(
    mute: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(storage, "ANSWER", 1.0)
    there = Bucket(mute)
    (tmp_path / "file").write_bytes(b"x")
    calls: list[Callable[[], object]] = [
        lambda: there.write("b", b"x"),
        lambda: there.read("a"),
        lambda: there.put("c", tmp_path / "file"),
        lambda: there.remove(["a"]),
        lambda: there.keys(),
    ]
    for call in calls:
        with pytest.raises(TimeoutError, match="its service does not answer"):
            call()
    with pytest.raises(ServiceUnavailable, match="does not answer"):
        storage.require(mute)


def test_what_knows_directories_gets_them_and_nothing_that_it_does_not_know(tmp_path: Path) -> None:
    """As over SFTP and WebDAV, whose file systems hand all options to their connections."""
    fsspec.register_implementation("hosts", Hosts, clobber=True)
    there = Bucket(f"hosts://host{tmp_path}/new")
    there.write("trials/0000/checkpoints/a.pt", b"0123")
    (tmp_path / "log").write_bytes(b"printed")
    there.put("trials/0000/attempt-1/output.log", tmp_path / "log")
    assert there.read("trials/0000/checkpoints/a.pt") == b"0123"
    assert there.keys("trials/0000") == {"trials/0000/checkpoints/a.pt", "trials/0000/attempt-1/output.log"}
    there.remove(["trials/0000/checkpoints/a.pt", "trials/0000/never.pt"])
    assert there.keys() == {"trials/0000/attempt-1/output.log"}


class Hosts(LocalFileSystem):  # type: ignore[misc]
    """Hosts with directories."""

    protocol = "hosts"

    def __init__(self, host: str) -> None:
        super().__init__(auto_mkdir=False)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(LocalFileSystem._strip_protocol(path.removeprefix("hosts://host")))

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, str]:
        return {"host": "host"}


def test_no_part_of_a_secret_is_left_where_a_long_message_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "geheimgeheim")
    said = storage._said(OSError("x" * 295 + "geheimgeheim"))
    assert said.startswith("x" * 295)
    assert "geh" not in said
