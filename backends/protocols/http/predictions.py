"""Reads replies that list predictions: those of MLflow, TF Serving, KServe V1 and Vertex.

The answer is the prediction of a single row, or the list of several. That of a row of probabilities
is the index of the greatest; that of a row that is an object is its `label` or `prediction`.
"""

from collections.abc import Sequence
from typing import Any

from tollway.backends.documents import has_gap, shown
from tollway.backends.errors import InvalidAnswer
from tollway.backends.protocols import confidence
from tollway.backends.protocols.http.reading import ReplyReader, find
from tollway.backends.sliced_json import Unread
from tollway.backends.types import HttpReply, ModelAnswer

_LABELS = ("label", "prediction")
_PROBABILITY = ("probability", "confidence", "score")


class PredictionReader(ReplyReader):
    """Reads answers; `members` are the places where the predictions may be."""

    def __init__(
        self,
        answer: str | None,
        confidence: str | None,
        probabilities: str | None,
        members: Sequence[str],
    ) -> None:
        super().__init__(answer, confidence, probabilities)
        self._members = members
        self._get = None if answer is None else find(answer)
        self._of_rows = confidence is None and probabilities is None

    def __call__(self, reply: HttpReply, document: Any) -> ModelAnswer:
        """Return the answer; InvalidAnswer if there is none."""
        if not isinstance(document, dict):
            raise InvalidAnswer(f"not an object: {shown(document)}")
        if document.get("error_code") is not None or document.get("error") is not None:
            raise InvalidAnswer(f"an error with status 200: {shown(document)}")
        predictions = next((document[one] for one in self._members if one in document), None)
        rows = predictions if isinstance(predictions, list) else [predictions]
        features: confidence.Features = ()
        if not self._of_rows:
            features = self._features(reply, document)
        elif rows and not isinstance(predictions, Unread):
            features = _features(rows)
        if self._get is not None:
            value = self._get(reply, document)
            if value is None:
                raise InvalidAnswer(f"nothing at {self._where}")
            return ModelAnswer(value, features)
        if predictions is None or predictions in ([], {}, ""):
            raise InvalidAnswer(f"no {self._members[0]}: {shown(document)}")
        if isinstance(predictions, Unread):  # too large to be read
            return ModelAnswer()
        values = [_value(row, probable=len(features) > 1) for row in rows]
        if has_gap(values):
            raise InvalidAnswer(f"a prediction is null, NaN or infinite: {shown(predictions)}")
        return ModelAnswer(values[0] if len(values) == 1 else values, features)


def _value(row: Any, *, probable: bool) -> Any:
    if isinstance(row, dict):
        return next((row[name] for name in _LABELS if row.get(name) is not None), row)
    if probable and isinstance(row, list):
        return row.index(max(row))
    return row


def _features(rows: list[Any]) -> confidence.Features:
    """Return the mean of the rows' confidence features, if all rows have them."""
    if all(isinstance(row, dict) for row in rows):
        probabilities = (next((row[n] for n in _PROBABILITY if n in row), None) for row in rows)
        confidences = [confidence.alone(each) for each in probabilities]
        return (
            (sum(each[0] for each in confidences) / len(confidences),) if all(confidences) else ()
        )
    classes = len(rows[0]) if isinstance(rows[0], list) else 0
    if classes < 2 or not all(isinstance(row, list) and len(row) == classes for row in rows):
        return ()
    flat = [number for row in rows for number in row]
    if not set(map(type, flat)) <= {int, float}:
        return ()
    return confidence.features_of_rows(flat, classes)
