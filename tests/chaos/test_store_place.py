"""Where a store may lie and whose it may be: network file systems, moved and copied studies, other users."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path, PurePath

import pytest
from small_store import Looker, begun, commits, history, killed, two_trials

from hpsearch.errors import UsageError
from hpsearch.study import mounts, opening, witness
from hpsearch.study.history import StoreReader
from hpsearch.study.mounts import network_type
from hpsearch.study.repair import repair
from hpsearch.study.store import Store
from hpsearch.study.witness import Witness

Fired = Callable[..., None]

TABLE = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
30 27 0:40 / /home rw,relatime shared:2 - nfs4 server:/home rw,vers=4.2
31 30 254:1 / /home/local rw,relatime - xfs /dev/vdb rw
32 27 0:41 / /mnt/win rw - cifs //host/share rw
33 27 0:42 / /mnt/ssh rw - fuse.sshfs me@host:/ rw,user_id=0
34 27 0:43 / /mnt/bucket rw - fuse.s3fs s3fs rw
35 27 0:44 / /mnt/a\\040blank rw - lustre mds@tcp:/scratch rw
36 27 0:45 / /scratch rw - beegfs beegfs_nodev rw
37 27 0:46 / /srv/twice rw - nfs server:/twice rw
38 37 0:47 / /srv/twice rw - tmpfs tmpfs rw
39 27 0:48 / /var/box rw - fuse.fuse-overlayfs fuse-overlayfs rw
40 27 0:49 / /wsl rw - 9p drvfs rw
a line that is no mount
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", None),
        ("/homestead/studies", None),
        ("/home/me/studies/s", "nfs4"),
        ("/home/local/studies", None),
        ("/mnt/win/s", "cifs"),
        ("/mnt/ssh/s", "fuse.sshfs"),
        ("/mnt/bucket/s", "fuse.s3fs"),
        ("/mnt/a blank/s", "lustre"),
        ("/mnt/a", None),
        ("/scratch", "beegfs"),
        ("/srv/twice/s", None),
        ("/var/box/s", None),
        ("/wsl/c/studies", "9p"),
    ],
)
def test_the_deepest_mount_above_a_path_says_whether_it_is_on_a_network(
    path: str, expected: str | None
) -> None:
    assert network_type(TABLE, PurePath(path)) == expected


KINDS = "nfs nfs4 cifs smb3 smbfs ceph lustre gpfs beegfs glusterfs 9p afs fuse.glusterfs fuse.ceph"


@pytest.mark.parametrize("kind", KINDS.split())
def test_every_network_file_system_is_known(kind: str) -> None:
    assert network_type(f"1 0 0:1 / / rw - {kind} x rw", PurePath("/studies/s")) == kind


@pytest.mark.fault("F13")
def test_a_store_on_a_network_file_system_is_refused_by_all_who_would_open_it(
    tmp_path: Path, fired: Fired, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "s"
    killed(place, two_trials).put(place)
    table = tmp_path / "mountinfo"
    table.write_text(
        f"27 1 0:1 / / rw - ext4 x rw\n28 27 0:2 / {tmp_path.resolve()} rw - nfs4 server:/s rw\n"
    )
    monkeypatch.setattr(mounts, "TABLE", table)
    (tmp_path / "link").symlink_to(place)
    for look in (Store.open, StoreReader, repair, lambda place: begun(place.parent / "new")):
        for directory in (place, tmp_path / "link"):
            with pytest.raises(UsageError, match=r"network file system \(nfs4\)") as told:
                look(directory)
            assert "PostgreSQL" in told.value.hint
    fired(network_type(table.read_text(), place.resolve()))
    monkeypatch.undo()
    assert history(place).trials, "and what this machine really has under the tests is a local one"


@pytest.mark.fault("F48")
def test_a_moved_study_goes_on_where_it_is_now(tmp_path: Path, fired: Fired) -> None:
    killed(tmp_path / "s", two_trials).put(tmp_path / "s")
    expected = repr(history(tmp_path / "s"))
    (tmp_path / "elsewhere").mkdir()
    moved = shutil.move(tmp_path / "s", tmp_path / "elsewhere/other name")
    fired(not (tmp_path / "s").exists())
    assert repr(history(Path(moved))) == expected
    store = Store.open(Path(moved))
    found = store.take(3)
    assert found.study.directory == Path(moved)
    assert found.study.name == "s"
    store.commit(commits(2)[0])
    store.close()
    assert not (tmp_path / "s").exists()


@pytest.mark.fault("F48")
def test_a_study_of_another_user_is_read_and_not_written_unless_that_is_wanted(
    tmp_path: Path, fired: Fired, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "s"
    killed(place, two_trials).put(place)
    monkeypatch.delenv(opening.ANY_OWNER, raising=False)
    if os.geteuid() == 0:
        os.chown(place, 12345, 12345)
    else:  # nobody else can give files away
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    fired(place.stat().st_uid != os.geteuid())
    names = sorted(path.name for path in place.iterdir())
    for write in (Store.open, repair):
        with pytest.raises(UsageError, match="belongs to user") as told:
            write(place)
        assert "chown" in told.value.hint
        assert opening.ANY_OWNER in told.value.hint
    assert {path.name for path in place.iterdir()} - set(names) <= {"study.db-shm"}
    assert len(Looker(place).history().trials) == 2
    monkeypatch.setenv(opening.ANY_OWNER, "1")
    store = Store.open(place)
    assert store.take(3).epoch == 2
    store.close()


# -- the witness ----------------------------------------------------------------------------------------


def test_a_witness_tells_the_latest_of_what_it_was_told(tmp_path: Path) -> None:
    writer = Witness(tmp_path)
    assert witness.read(tmp_path) is None
    for lsn in (0, 3, 4, 10):
        writer.note(witness.Testimony(lsn, 1, "abc"))
        assert witness.read(tmp_path) == witness.Testimony(lsn, 1, "abc")
    writer.close()
    again = Witness(tmp_path)
    again.note(witness.Testimony(10, 2, "abc"))
    assert witness.read(tmp_path) == witness.Testimony(10, 2, "abc")
    again.close()
    witness.write(tmp_path, witness.Testimony(2, 2, "abc"))
    assert witness.read(tmp_path) == witness.Testimony(2, 2, "abc")


def test_a_witness_torn_in_one_half_tells_the_other(tmp_path: Path) -> None:
    writer = Witness(tmp_path)
    for lsn in (7, 8):
        writer.note(witness.Testimony(lsn, 1, "abc"))
    writer.close()
    data = witness.content(tmp_path)
    for cut in range(len(data)):
        assert witness.latest(data[:cut]) in (None, witness.Testimony(7, 1, "abc"))
    assert witness.latest(data[:128]) == witness.Testimony(7, 1, "abc")
    assert witness.latest(b"x" * 128 + data[128:]) == witness.Testimony(8, 1, "abc")


def test_a_witness_is_no_link_that_somebody_planted(tmp_path: Path) -> None:
    (tmp_path / "canary").write_text("alive")
    (tmp_path / witness.NAME).symlink_to(tmp_path / "canary")
    with pytest.raises(OSError, match=r"symbolic links|Too many"):
        Witness(tmp_path)
    assert witness.read(tmp_path) is None
    assert (tmp_path / "canary").read_text() == "alive"
