"""The vendors of market data, made from settings and secrets."""

from __future__ import annotations

from dataclasses import replace

from garch_platform.bars import Timeframe
from garch_platform.errors import ConfigurationError
from garch_platform.rest.alpaca import ALPACA, AlpacaAccess
from garch_platform.settings import Settings, load_secrets
from garch_platform.sources import AlpacaAssets, AlpacaSource, YahooSource

__all__ = ["alpaca_assets", "alpaca_source", "yahoo_source"]


def alpaca_source(settings: Settings, timeframe: Timeframe | None = None) -> AlpacaSource:
    """Alpaca's bars of ``timeframe`` (of the workspace's if None).

    Raises:
        ConfigurationError: the credentials are not in the environment.
    """
    alpaca, step = settings.alpaca, timeframe or settings.timeframe
    return AlpacaSource(
        settings.calendar,
        step,
        _access(settings, alpaca.data_url),
        feed=alpaca.feed,
        adjustment=alpaca.adjustment,
        history_days=alpaca.minute_days if step.minutes < 60 else alpaca.hourly_days,
        page_limit=alpaca.page_limit,
        symbols_per_request=alpaca.symbols_per_request,
    )


def alpaca_assets(settings: Settings) -> AlpacaAssets:
    """Alpaca's list of assets. Errors as in `alpaca_source`."""
    return AlpacaAssets(_access(settings, settings.alpaca.trading_url), paper=settings.alpaca.paper)


def yahoo_source(settings: Settings, timeframe: Timeframe | None = None) -> YahooSource:
    """Yahoo's bars of ``timeframe`` (of the workspace's if None), and company information."""
    yahoo = settings.yahoo
    step = timeframe or settings.timeframe
    return YahooSource(
        settings.calendar,
        step,
        history_days=yahoo.daily_days if step.is_daily else yahoo.hourly_days,
        requests_per_minute=yahoo.requests_per_minute,
        attempts=yahoo.attempts,
    )


def _access(settings: Settings, url: str | None) -> AlpacaAccess:
    secrets = load_secrets()
    if missing := secrets.missing():
        raise ConfigurationError(
            f"Alpaca needs {' and '.join(missing)}; set them in the environment or in .env "
            "(the keys of a paper account will do)"
        )
    return AlpacaAccess(
        secrets.apca_api_key_id,
        secrets.apca_api_secret_key,
        server=replace(ALPACA, url=url),
        requests_per_minute=settings.alpaca.requests_per_minute,
        attempts=settings.alpaca.attempts,
    )
