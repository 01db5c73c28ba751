"""An outbox that follows a study's store, and whose progress the store keeps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpsearch.study.history import History
from hpsearch.study.store import Store
from hpsearch.track.outbox import Outbox
from hpsearch.track.uri import local_database

# How long it waits at the end where something failed, and a person waits for the message (seconds).
FAREWELL = 5.0


@contextmanager
def following(store: Store, history: History, *, interval: float) -> Iterator[Outbox]:
    """Within it, what the store commits is told to MLflow, every `interval` seconds; closed at its end."""
    study, uri = history.study, history.tracking_uri
    # MLflow's own default is a directory wherever the process happens to be.
    database = local_database(uri)
    reader = store.reader()
    outbox = Outbox(
        study,
        reader.changes,
        uri=uri,
        artifact_root=database.absolute().parent / "mlartifacts" if database else None,
        experiment=study.spec.tracking.experiment or Path(study.spec.source).stem,
        offset=history.offset,
        parent_run_id=history.parent_run_id,
        interval=interval,
    )
    store.progress = lambda: (outbox.offset, outbox.parent_run_id)
    outbox.start()
    try:
        yield outbox
    finally:
        outbox.close(FAREWELL)
        reader.close()
