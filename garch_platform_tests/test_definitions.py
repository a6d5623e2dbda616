"""The asset graph as Dagster sees it, held against a committed picture of it.

After a change that is meant, write the picture anew: ``GARCH_UPDATE_GOLDEN=1 pytest -k test_definitions``.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from garch_platform.orchestration.code_location import CodeLocation
from garch_platform.settings import load_settings
from garch_platform.workspace import Workspace

GOLDEN = Path(__file__).parent / "golden" / "definitions.json"
UPDATE = "GARCH_UPDATE_GOLDEN"


@pytest.fixture(scope="module")
def location(tmp_path_factory: pytest.TempPathFactory) -> CodeLocation:
    """The code location of an empty workspace with its default settings."""
    return CodeLocation(Workspace(load_settings(tmp_path_factory.mktemp("empty"))))


def picture(definitions: dg.Definitions) -> dict[str, Any]:
    """All that a user relies on: names, groups, kinds, owners, dependencies, partitions, checks, jobs."""
    repository = definitions.get_repository_def()
    graph = repository.asset_graph
    assets = {}
    for spec in sorted(definitions.resolve_all_asset_specs(), key=lambda one: one.key):
        name = spec.key.to_user_string()
        assets[name] = {
            "group": spec.group_name,
            "kinds": sorted(spec.kinds),
            "owners": list(spec.owners),
            "deps": sorted(dep.asset_key.to_user_string() for dep in spec.deps),
            "partitions": spec.partitions_def and type(spec.partitions_def).__name__,
            "dimensions": sorted(one.name for one in getattr(spec.partitions_def, "partitions_defs", [])),
            "checks": {
                key.name: "blocks" if graph.get_check_spec(key).blocking else "warns"
                for key in sorted(graph.get_check_keys_for_assets({spec.key}))
            },
        }
    return {
        "assets": assets,
        "jobs": {
            job.name: sorted(key.to_user_string() for key in job.asset_layer.executable_asset_keys)
            for job in repository.get_all_jobs()
            if not job.name.startswith("__")
        },
        "schedules": {one.name: one.cron_schedule for one in repository.schedule_defs},
        "sensors": sorted(one.name for one in repository.sensor_defs),
    }


def test_the_graph_is_the_committed_one(location: CodeLocation) -> None:
    seen = picture(location.definitions)
    if os.environ.get(UPDATE):
        GOLDEN.write_text(json.dumps(seen, indent=2, sort_keys=True) + "\n", "utf-8")
    assert seen == json.loads(GOLDEN.read_text("utf-8"))


def test_every_asset_tells_what_it_is(location: CodeLocation) -> None:
    for spec in location.definitions.resolve_all_asset_specs():
        name = spec.key.to_user_string()
        schema = spec.metadata["dagster/column_schema"]
        assert spec.description, name
        assert spec.group_name in {"bars", "features", "models", "pairs", "vendors", "live"}, name
        assert len(schema.columns) > 5, name


def test_a_ranking_depends_on_all_symbols_of_its_own_session_only(location: CodeLocation) -> None:
    instance = dg.DagsterInstance.ephemeral()
    instance.add_dynamic_partitions("symbols", ["AAA", "BBB"])
    assert upstream(location, instance, "pair_rankings", "garch_models", "2024-01-03|technology") == {
        "2024-01-03|AAA",
        "2024-01-03|BBB",
    }


def test_features_of_a_session_depend_on_its_bars_and_the_bulk_past_of_the_same_symbol(
    location: CodeLocation,
) -> None:
    instance = dg.DagsterInstance.ephemeral()
    instance.add_dynamic_partitions("symbols", ["AAA", "BBB"])
    assert upstream(location, instance, "features", "raw_bars", "2024-01-03|BBB") == {"2024-01-03|BBB"}
    assert upstream(location, instance, "features", "feature_history", "2024-01-03|BBB") == {"BBB"}


def upstream(
    location: CodeLocation, instance: dg.DagsterInstance, child: str, parent: str, key: str
) -> set[str]:
    """Keys of ``parent`` that the partition ``key`` of ``child`` depends on."""
    graph = location.definitions.get_repository_def().asset_graph
    node, source = graph.get(dg.AssetKey(child)), graph.get(dg.AssetKey(parent))
    assert node.partitions_def is not None
    assert source.partitions_def is not None
    mapping = graph.get_partition_mapping(node.key, source.key)
    result = mapping.get_upstream_mapped_partitions_result_for_partitions(
        node.partitions_def.subset_with_partition_keys([key]),
        node.partitions_def,
        source.partitions_def,
        current_time=datetime(2024, 2, 1, tzinfo=UTC),
        dynamic_partitions_store=instance,
    )
    return set(result.partitions_subset.get_partition_keys())


@pytest.mark.parametrize("day", ["2024-01-15", "2024-01-13", "2024-03-29"])
def test_holidays_and_weekends_have_no_key(location: CodeLocation, day: str) -> None:
    keys = location.partitions.days.get_partition_keys(current_time=datetime(2024, 4, 2, 12, tzinfo=UTC))
    assert day not in keys
    assert keys[0] == "2024-01-02"


def test_today_has_its_key_today(location: CodeLocation) -> None:
    morning = datetime(2024, 4, 2, 12, tzinfo=UTC)
    assert location.partitions.days.get_partition_keys(current_time=morning)[-1] == "2024-04-02"
