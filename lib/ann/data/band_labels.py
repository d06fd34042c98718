"""What bands mean, by their labels: red, nir, S2_8A. Models know those of their training and look for them.

Labels are the semantic labels of raster maps (r.semantic.label) or the descriptions of the bands of a file;
upper and lower case make no difference. No labels at all, (), means that nothing is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ann.errors import SceneError


def known_labels(labels: Sequence[str | None]) -> tuple[str, ...]:
    """The labels where each band has one of its own, else none."""
    plain = [label.strip() for label in labels if label and label.strip()]
    distinct = len({label.casefold() for label in plain}) == len(labels)
    return tuple(plain) if distinct else ()


def common_labels(labels: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Those of all images where they agree, else none."""
    found = {tuple(label.casefold() for label in one): one for one in labels}
    return next(iter(found.values())) if len(found) == 1 else ()


def places_of_bands(
    labels: Sequence[str | None], wanted: Sequence[str], where: str
) -> tuple[int, ...] | None:
    """Which bands to take, from 0, so that they come in the model's order.

    labels: of what there is; wanted: those of the model, () if it knows none; where: for the message. None
    where nothing has a label, so that the bands' own order has to do.

    Raises:
        SceneError: one that the model was trained on is missing.
    """
    found = {label.strip().casefold(): place for place, label in enumerate(labels) if label}
    if not found or not wanted:
        return None
    missing = [label for label in wanted if label.casefold() not in found]
    if missing:
        listed = ", ".join(label or "(no label)" for label in labels)
        raise SceneError(
            f"{where} lacks {', '.join(missing)}. The model was trained on the bands {', '.join(wanted)}, "
            f"and there are {listed}. Add what is missing, or label it (r.semantic.label)"
        )
    return tuple(found[label.casefold()] for label in wanted)
