"""Values as the services write them on a trial's command line and in their resources."""

from __future__ import annotations

from hpsearch.spec.model import Value

# Keys of a record in the metric file, which a metric of that name would overwrite.
RESERVED = frozenset({"timestamp", "trial", "global_step", "checkpoint_path"})


def text_of(value: Value) -> str:
    """A value's text: whole numbers without `.0`, texts raw, other numbers in 15 digits, else 17.

    So a number reads back equal. Source: protobuf's SimpleDtoa, as in the services' recorded job outputs.
    """
    if not isinstance(value, float):
        return str(value)
    text = f"{value:.15g}"
    return text if float(text) == value else f"{value:.17g}"
