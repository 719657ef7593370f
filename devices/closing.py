"""The context-manager half of whatever is closed; owns nothing."""

from __future__ import annotations

from types import TracebackType

from typing_extensions import Self


class Closing:
    """A ``with`` block that ends with `close`."""

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
