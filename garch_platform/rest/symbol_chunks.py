"""Many symbols a request, and what happens when such a request fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from garch_platform.errors import SourceError
from garch_platform.rest.request_pace import RequestFailed, RequestRefused

__all__ = ["ChunkedAnswer", "ask_in_chunks"]

GIVE_UP_AFTER: Final = {True: 8, False: 3}
"""Failed requests in a row (after all their attempts) that mean the server is down, and not that one
symbol is at fault: 8 where it answered, which finds one symbol among 128 by halving; 3 where it did not."""

T = TypeVar("T")


@dataclass
class ChunkedAnswer(Generic[T]):
    """What `ask_in_chunks` got.

    Attributes:
        answers: one a request that succeeded.
        failed: symbols without an answer, each with the reason.
    """

    answers: list[T] = field(default_factory=list)
    failed: dict[str, SourceError] = field(default_factory=dict)


def ask_in_chunks(symbols: Sequence[str], size: int, ask: Callable[[list[str]], T]) -> ChunkedAnswer[T]:
    """Ask for ``size`` symbols at a time; halve a request that fails until the symbols at fault are alone.

    Args:
        symbols: all of them, each once.
        size: symbols a request.
        ask: makes one request, with all its attempts; raises `RequestFailed` or `RequestRefused`.

    Raises:
        SourceError: the server did not answer a single request, or ``ask`` raised another error.
    """
    result = ChunkedAnswer[T]()
    waiting = [list(symbols[first : first + size]) for first in range(0, len(symbols), size)][::-1]
    in_a_row, answered = 0, not waiting
    while waiting:
        chunk = waiting.pop()
        reason: SourceError
        try:
            result.answers.append(ask(chunk))
            in_a_row, answered = 0, True
            continue
        except RequestRefused as error:
            in_a_row, answered, reason = 0, True, error
        except RequestFailed as error:
            in_a_row, reason = in_a_row + 1, error
            if in_a_row >= GIVE_UP_AFTER[error.status is not None]:
                chunk = [*chunk, *(symbol for part in waiting[::-1] for symbol in part)]
                result.failed |= dict.fromkeys(chunk, reason)
                break
        if len(chunk) == 1:
            result.failed[chunk[0]] = reason
        else:
            middle = len(chunk) // 2
            waiting += [chunk[middle:], chunk[:middle]]
    if not answered:
        reason = next(iter(result.failed.values()))
        raise SourceError(f"nothing could be read: {reason}; run again when the server answers") from reason
    return result
