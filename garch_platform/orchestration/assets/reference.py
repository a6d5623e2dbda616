"""What vendors say beside the bars of the workspace's own length: other bars, companies, assets, actions."""

from datetime import UTC, datetime

import dagster as dg

from garch_platform.bars import Timeframe
from garch_platform.orchestration.metadata import mark_failed
from garch_platform.workspace import Workspace
from garch_platform.workspace.keys import KeySet
from garch_platform.workspace.maintenance import maintain_symbols
from garch_platform.workspace.other_bars import OtherBars, load_other_bars
from garch_platform.workspace.vendors import alpaca_assets, alpaca_source, yahoo_source

__all__ = ["broker_assets", "company_info", "corporate_actions", "hourly_bars", "yahoo_bars"]

HOUR, DAY = Timeframe.parse("1Hour"), Timeframe.parse("1Day")


def hourly_bars(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> dg.MaterializeResult[None]:
    """Alpaca's hourly bars, from the last stored one on, beside the workspace's own in the lake."""
    keys = KeySet.of(context.partition_keys)
    source = alpaca_source(workspace.settings, HOUR)
    found = load_other_bars(
        workspace, source, HOUR, keys.names, asset=context.asset_key.to_user_string(), now=datetime.now(UTC)
    )
    return _loaded(context, keys, found)


def yahoo_bars(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> dg.MaterializeResult[None]:
    """Yahoo's daily bars with their split factors and dividends, beside the workspace's own in the lake."""
    keys = KeySet.of(context.partition_keys)
    source = yahoo_source(workspace.settings, DAY)
    found = load_other_bars(
        workspace, source, DAY, keys.names, asset=context.asset_key.to_user_string(), now=datetime.now(UTC)
    )
    return _loaded(context, keys, found)


def company_info(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> dg.MaterializeResult[None]:
    """What Yahoo says of each company: name, sector, industry, exchange, market capitalisation."""
    keys = KeySet.of(context.partition_keys)
    source = yahoo_source(workspace.settings, DAY)
    companies = source.company_info(keys.names)
    workspace.database.upsert("company_info", companies)
    missing = sorted(set(keys.names) - set(companies["symbol"]))
    mark_failed(context, {name: source.unreadable().get(name, "not known to Yahoo") for name in missing})
    return dg.MaterializeResult(metadata={"companies": len(companies), "missing": missing})


def corporate_actions(workspace: dg.ResourceParam[Workspace]) -> dg.MaterializeResult[None]:
    """Splits and cash dividends of the followed symbols, as Alpaca announces them; today's ex-dates included."""
    today = datetime.now(workspace.calendar.timezone).date()
    source = alpaca_source(workspace.settings)
    symbols = workspace.symbols().filter("is_active")["symbol"].to_list()
    actions = source.actions(symbols, workspace.settings.trading_days.start, today)
    workspace.database.upsert("corporate_actions", actions)
    counts = dict(actions["action"].value_counts().iter_rows())
    return dg.MaterializeResult(
        metadata={"splits": counts.get("split", 0), "dividends": counts.get("dividend", 0)}
    )


def broker_assets(workspace: dg.ResourceParam[Workspace]) -> dg.MaterializeResult[None]:
    """Alpaca's list of assets: what is tradable, shortable and easy to borrow; delistings and renames.

    A registered symbol that was delisted is retired, one that was renamed continues under its new name.
    A list that cannot be fetched, or is implausibly short, changes nothing.
    """
    today = datetime.now(workspace.calendar.timezone).date()
    done = maintain_symbols(workspace, alpaca_assets(workspace.settings).listed(), today)
    workspace.sync_symbols()
    return dg.MaterializeResult(
        metadata={
            "delisted": len(done.changes.delisted),
            "renamed": len(done.changes.renamed),
            "retired_here": done.retired,
            "renamed_here": done.renamed,
            "passed_on_here": done.passed_on,
            "returned_here": done.returned,
            "untradable_here": done.untradable,
        }
    )


def _loaded(context: dg.AssetExecutionContext, keys: KeySet, found: OtherBars) -> dg.MaterializeResult[None]:
    mark_failed(context, {name: why for name, why in found.unreadable.items() if name in keys.names})
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(found.stored),
            "symbols": found.stored["symbol"].n_unique(),
            "rejected": len(found.rejected),
            "unreadable": found.unreadable,
        }
    )
