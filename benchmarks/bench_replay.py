"""The recycler's tape and player: memory over ten million bars, ticks a second, and jitter of the schedule.

    python benchmarks/bench_replay.py [--symbols 500] [--sessions 52] [--seconds 60] [--real]

Another process fills a temporary lake with one simulated session of minute bars at shifted dates. It is
replayed twice at speed `max` (resident memory and its high-water mark after every two million bars), then at
speed 600, a tick every 100 ms: how long after its due time each tick is handed over, and how the time between
two ticks scatters around the 100 ms. `--real` adds three minutes at speed 1.0: ticks after the full minute.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from garch_platform.bars import BAR_SCHEMA, UTC_TIMESTAMP, Timeframe
from garch_platform.recycler.clock import ReplayClock, Speed
from garch_platform.recycler.player import Mode, Player
from garch_platform.recycler.tape import Tape
from garch_platform.sessions import trading_calendar
from garch_platform.store.lake import Lake

MINUTE = Timeframe.parse("1Min")
EVERY = 2_000_000


def fill(lake: Lake, symbols: int, sessions: int) -> int:
    """Write ``sessions`` full sessions of ``symbols`` symbols; return the number of bars."""
    calendar = trading_calendar()
    days = [
        day
        for day in calendar.sessions(date(2023, 1, 3), date(2024, 12, 31))
        if len(calendar.expected_timestamps(day, MINUTE)) == 390
    ][:sessions]
    names = [f"S{number:03d}" for number in range(symbols)]
    rng = np.random.default_rng(1)
    price = 100.0 * np.exp(rng.normal(0.0, 1e-3, (symbols, 390)).cumsum(axis=1)).ravel()
    first = calendar.expected_timestamps(days[0], MINUTE)
    session = pl.DataFrame(
        {
            "symbol": np.repeat(names, 390),
            "timestamp": pl.concat([first] * symbols),
            "open": price,
            "high": price + 0.01,
            "low": price - 0.01,
            "close": price,
            "volume": rng.integers(1, 10_000, price.size).astype(float),
            "vwap": price,
            "trade_count": rng.integers(1, 100, price.size),
        }
    ).with_columns(
        timeframe=pl.lit("1Min"),
        feed=pl.lit("iex"),
        data_source=pl.lit("simulated"),
        is_proxy=pl.lit(False),
        adjustment=pl.lit("raw"),
        split_factor=pl.lit(None, pl.Float64),
        dividend=pl.lit(None, pl.Float64),
    )
    for day in days:
        shift = calendar.bounds(day)[0] - calendar.bounds(days[0])[0]
        frame = session.with_columns(
            timestamp=(pl.col("timestamp") + shift).cast(UTC_TIMESTAMP), session_date=pl.lit(day)
        ).with_columns(available_at=pl.col("timestamp") + MINUTE.duration)
        frame = frame.select(pl.col(name).cast(kind) for name, kind in BAR_SCHEMA.items())
        lake.replace("bars", frame, timeframe="1Min", symbols=names, start=day, end=day)
    return symbols * 390 * len(days)


def resident() -> tuple[float, float]:
    """Resident memory now and at its highest, MiB."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    high = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return pages * resource.getpagesize() / 2**20, high


def player_of(lake: Lake, speed: Speed, mode: Mode, passes: int = 1) -> Player:
    """A player of the whole lake."""
    tape = Tape(lake, MINUTE)
    tape.open()
    return Player(tape, ReplayClock(MINUTE, speed=speed), mode=mode, loop_count=passes)


async def flatness(lake: Lake, passes: int) -> None:
    """Replay the lake as fast as possible and print memory on the way."""
    player = player_of(lake, "max", "loop", passes)
    bars = ticks = 0
    print(f"\n{'bars':>12} {'RSS MiB':>9} {'highest':>9} {'bars/s':>11} {'ticks/s':>9}")
    print(f"{0:>12,} {resident()[0]:>9.0f} {resident()[1]:>9.0f}")
    started = lap = time.perf_counter()
    since = (0, 0)
    async for tick in player.ticks():
        bars += len(tick.bars)
        ticks += 1
        if bars - since[0] >= EVERY:
            now, (rss, high) = time.perf_counter(), resident()
            print(
                f"{bars:>12,} {rss:>9.0f} {high:>9.0f} {(bars - since[0]) / (now - lap):>11,.0f} "
                f"{(ticks - since[1]) / (now - lap):>9,.0f}",
                flush=True,
            )
            lap, since = now, (bars, ticks)
    taken = time.perf_counter() - started
    print(f"{bars:>12,} bars in {taken:.1f} s: {bars / taken:,.0f} bars/s, {ticks / taken:,.0f} ticks/s")


async def schedule(lake: Lake, speed: float, seconds: float) -> None:
    """Replay in time and print how late ticks are, and how their distances scatter."""
    player = player_of(lake, speed, "loop", -1)
    step = 60.0 / speed
    late, moments = [], []
    end = datetime.now(UTC) + timedelta(seconds=seconds)
    async for tick in player.ticks():
        now = datetime.now(UTC)
        due = tick.timestamp + timedelta(minutes=1)
        late.append((player.clock.virtual(now) - due).total_seconds() / speed)
        moments.append(now.timestamp())
        if now >= end:
            break
    lateness, jitter = np.array(late[1:]) * 1e3, np.diff(moments[1:]) * 1e3 - step * 1e3
    print(f"\nspeed {speed:g}: {len(late)} ticks of {len(tick.bars)} bars, one every {step * 1e3:,.0f} ms")
    for name, values in (("after its due time", lateness), ("distance - step, abs", np.abs(jitter))):
        p50, p99 = np.percentile(values, [50, 99])
        print(f"  {name:<22} p50 {p50:7.2f} ms   p99 {p99:7.2f} ms   max {values.max():7.2f} ms")
    drift = (moments[-1] - moments[1]) - (len(moments) - 2) * step
    print(f"  drift over the whole run {drift * 1e3:.2f} ms")


def main() -> None:
    """Run the benchmark."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--symbols", type=int, default=500)
    arguments.add_argument("--sessions", type=int, default=52)
    arguments.add_argument("--passes", type=int, default=2)
    arguments.add_argument("--seconds", type=float, default=60.0)
    arguments.add_argument("--real", action="store_true", help="three minutes at speed 1.0, too")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="garch-bench-") as folder:
        lake = Lake(Path(folder) / "lake")
        started = time.perf_counter()
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            bars = pool.submit(fill, lake, options.symbols, options.sessions).result()
        print(f"lake: {bars:,} bars written in {time.perf_counter() - started:.1f} s", flush=True)
        asyncio.run(flatness(lake, options.passes))
        asyncio.run(schedule(lake, 600.0, options.seconds))
        if options.real:
            asyncio.run(schedule(lake, 1.0, 185.0))


if __name__ == "__main__":
    main()
