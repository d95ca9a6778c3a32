"""What every class of the vocabulary is made of: a frozen, closed base, and the numbers that suites are full of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

#: strict: YAML's `true` is not the number 1
Count = Annotated[int, Field(gt=0, strict=True)]
Seed = Annotated[int, Field(ge=0, strict=True)]
Share = Annotated[float, Field(gt=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Part = Annotated[float, Field(gt=0, lt=1)]
NotNegative = Annotated[float, Field(ge=0)]


class Vocabulary(BaseModel):
    """Frozen, closed base of every class that a suite or a cell is made of."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ClipShape(Vocabulary):
    """The input of one step: `batch_size` clips of `frames` RGB frames of `resolution` x `resolution` pixels."""

    frames: Count
    resolution: Count
    batch_size: Count = 1

    def __str__(self) -> str:
        return f"{self.batch_size}x{self.frames}x{self.resolution}"


def as_tuple(value: Any) -> Any:
    """A list as a tuple, and anything that is neither as a tuple of itself."""
    return tuple(value) if isinstance(value, list) else (value if isinstance(value, tuple) else (value,))


def one_or_more(item: Any) -> BeforeValidator:
    """A list may be written as its only item; the JSON Schema says so too."""
    return BeforeValidator(as_tuple, json_schema_input_type=item | list[item])
