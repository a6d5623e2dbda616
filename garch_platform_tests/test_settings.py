"""Where a setting comes from, and what is refused."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from garch_platform.errors import ConfigurationError
from garch_platform.settings import Settings, config_folder, load_secrets, load_settings
from garch_platform_tests import readme_tables

COMMITTED = Path(__file__).resolve().parent.parent / "config"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory and an environment without the platform's variables."""
    for name in os.environ:
        if name.upper().startswith("GARCH_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, **values: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values), "utf-8")


@pytest.fixture
def config(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config folder of the test's own."""
    copy = folder / "config"
    shutil.copytree(COMMITTED, copy)
    monkeypatch.setenv("GARCH_CONFIG", str(copy))
    return copy


@pytest.mark.parametrize(
    ("environment", "gate", "workspace"),
    [("dev", "relaxed", "workspace"), ("test", "relaxed", "test"), ("prod", "strict", "workspace")],
)
def test_every_committed_environment_loads(
    environment: str, gate: str, workspace: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GARCH_ENV", environment)
    settings = load_settings()
    assert settings.stability.gate == gate
    assert settings.workspace == folder / ".garch" / workspace


def test_base_holds_the_documents_thresholds() -> None:
    gates = load_settings().stability.gates
    assert (gates["strict"].arch_pvalue, gates["strict"].rolling_std_cv) == (0.05, 0.5)
    assert (gates["relaxed"].arch_pvalue, gates["relaxed"].ljung_box_pvalue) == (1e-100, 0.001)


def test_later_sources_win(config: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [load_settings().formation.sessions]
    write(config / "dev.yaml", formation={"sessions": 11})
    seen.append(load_settings().formation.sessions)
    write(folder / ".garch" / "workspace" / "settings.yaml", formation={"sessions": 12})
    seen.append(load_settings().formation.sessions)
    (folder / ".env").write_text("GARCH_FORMATION__SESSIONS=13\nPOSTGRES_PASSWORD=unrelated\n")
    seen.append(load_settings().formation.sessions)
    monkeypatch.setenv("GARCH_FORMATION__SESSIONS", "14")
    seen.append(load_settings().formation.sessions)
    seen.append(load_settings(formation={"sessions": 15}).formation.sessions)
    assert seen == [504, 11, 12, 13, 14, 15]


def test_a_later_source_changes_single_values(config: Path) -> None:
    before = load_settings()
    write(config / "dev.yaml", stability={"gates": {"strict": {"arch_pvalue": 0.01}}})
    after = load_settings()
    assert after.stability.gates["strict"].arch_pvalue == 0.01
    assert after.stability.gates["strict"].rolling_std_cv == before.stability.gates["strict"].rolling_std_cv
    assert after.stability.gates["relaxed"] == before.stability.gates["relaxed"]


@pytest.mark.parametrize("named_by", ["argument", "variable", "dotenv", "environment_file"])
def test_settings_of_the_workspace_are_found(
    named_by: str, config: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = folder / "elsewhere"
    write(home / "settings.yaml", demo=True, universe={"source": "sample"})
    arguments = {"workspace": home} if named_by == "argument" else {}
    if named_by == "variable":
        monkeypatch.setenv("GARCH_WORKSPACE", str(home))
    elif named_by == "dotenv":
        (folder / ".env").write_text(f"GARCH_WORKSPACE={home}\n")
    elif named_by == "environment_file":
        write(config / "dev.yaml", workspace=str(home))
    settings = load_settings(**arguments)
    assert (settings.workspace, settings.universe.source) == (home, "sample")


def test_environment_may_stand_in_dotenv(folder: Path) -> None:
    (folder / ".env").write_text("GARCH_ENV=prod\n")
    assert load_settings().stability.gate == "strict"


def test_paths_hang_from_the_workspace(folder: Path) -> None:
    settings = load_settings(workspace="state")
    home = folder / "state"
    assert settings.lake_url == str(home / "lake")
    assert settings.database_url == f"sqlite:///{home / 'garch.db'}"
    assert settings.dagster_home == home / "dagster"
    assert settings.registry_path == home / "symbols.yaml"
    assert settings.files_path == home / "inbox"


def test_stores_may_stand_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GARCH_STORAGE__LAKE_URL", "s3://bucket/garch")
    monkeypatch.setenv("GARCH_STORAGE__DATABASE_URL", "postgresql://garch:secret@db:5432/garch")
    settings = load_settings()
    assert settings.lake_url == "s3://bucket/garch"
    assert settings.database_url == "postgresql://garch:secret@db:5432/garch"


def test_a_demo_keeps_its_own_stores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GARCH_STORAGE__LAKE_URL", "s3://bucket/garch")
    monkeypatch.setenv("GARCH_STORAGE__DATABASE_URL", "postgresql://garch:secret@db:5432/garch")
    settings = load_settings(tmp_path, demo=True)
    assert settings.lake_url == str(tmp_path / "lake")
    assert settings.database_url == f"sqlite:///{tmp_path / 'garch.db'}"


def test_formation_may_resample_the_bars() -> None:
    settings = load_settings(universe={"timeframe": "1Min"}, formation={"timeframe": "15Min"})
    assert (settings.timeframe.name, settings.formation_timeframe.name) == ("1Min", "15Min")
    assert load_settings(universe={"timeframe": "1Min"}).formation_timeframe.name == "1Min"
    assert settings.calendar.name == "XNYS"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"universe": {"timeframe": "2Min"}}, "timeframe '2Min' is not known; use one of 1Min"),
        ({"formation": {"sessions": 0}}, r"formation\.sessions: .*greater than 0 \(got 0\)"),
        (
            {"formation": {"timeframe": "1Min"}},
            "formation.timeframe 1Min is shorter than universe.timeframe 1Day",
        ),
        ({"trading_days": {"end": "2023-01-03"}}, "end 2023-01-03 is before start 2024-01-02"),
        ({"universe": {"sectors": {"active": ["energy"]}}}, r"active sectors \['energy'\] are not among"),
        ({"universe": {"sectors": {"active": []}}}, r"universe\.sectors\.active: .*at least 1 item"),
        ({"universe": {"source": "sample"}}, "'sample' is for demo workspaces only; set demo: true"),
        ({"universe": {"source": "simulated"}}, "'simulated' is for demo workspaces only"),
        ({"stability": {"gate": "lax"}}, r"stability\.gate: .*'strict' or 'relaxed' \(got 'lax'\)"),
        (
            {"pairs": {"honest": {"min_correlation": 0.9}}},
            r"pairs\.honest\.min_correlation: Extra inputs are not",
        ),
        ({"quality": {"max_rejected_share": 1.5}}, r"quality\.max_rejected_share: .* \(got 1\.5\)"),
    ],
)
def test_bad_value_is_named_with_its_setting(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_settings(**values)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(formation={"sessions": 0}, garch={"min_observations": -1})
    assert "formation.sessions" in str(caught.value)
    assert "garch.min_observations" in str(caught.value)


def test_sector_all_is_always_available() -> None:
    assert load_settings(universe={"sectors": {"active": ["all"]}}).universe.sectors.active == ["all"]


def test_unknown_section_in_a_file_is_refused(config: Path) -> None:
    write(config / "dev.yaml", formaton={"sessions": 3})
    with pytest.raises(
        ConfigurationError, match=r"dev\.yaml has unknown settings formaton; the sections are "
    ):
        load_settings()


@pytest.mark.parametrize(
    ("text", "message"),
    [("- 1\n", "settings.yaml holds a list"), ("a: [\n", "settings.yaml is not valid YAML")],
)
def test_malformed_workspace_file_is_named(text: str, message: str, folder: Path) -> None:
    file = folder / "state" / "settings.yaml"
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        load_settings(workspace="state")


def test_misspelt_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GARCH_FORMATON__SESSIONS", "3")
    with pytest.raises(ConfigurationError, match="variable GARCH_FORMATON__SESSIONS names no section"):
        load_settings()


def test_unknown_environment_lists_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GARCH_ENV", "staging")
    with pytest.raises(
        ConfigurationError, match="GARCH_ENV='staging' is not known; use one of dev, test, prod"
    ):
        load_settings()


def test_config_folder_without_base_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config_folder() == COMMITTED
    monkeypatch.setenv("GARCH_CONFIG", str(folder))
    with pytest.raises(
        ConfigurationError, match=r"no base\.yaml in .*; point GARCH_CONFIG at the config folder"
    ):
        config_folder()


def test_settings_are_immutable() -> None:
    settings = load_settings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.demo = True  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        settings.formation.sessions = 3  # type: ignore[misc]


def test_base_names_every_setting_and_the_example_every_secret() -> None:
    """No default stands in the code: base.yaml is complete."""
    base = yaml.safe_load((COMMITTED / "base.yaml").read_text("utf-8"))
    assert set(base) == set(Settings.model_fields)
    assert [name for name, field in Settings.model_fields.items() if not field.is_required()] == []
    assert "password" not in str(base).lower()
    example = (COMMITTED.parent / ".env.example").read_text("utf-8")
    assert all(line.startswith("#") or not line for line in example.splitlines())
    assert {"POSTGRES_PASSWORD", "DAGSTER_POSTGRES_URL", "GARCH_STORAGE__DATABASE_URL"} <= {
        line.removeprefix("# ").partition("=")[0] for line in example.splitlines()
    }


def choices(section: type[BaseModel], path: str = "") -> Iterator[tuple[str, set[str]]]:
    """Every setting that takes one of a few words: its dotted name, and the words."""
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from choices(kind, f"{path}{name}.")
        elif get_origin(kind) is not dict:
            kinds = (kind, *get_args(kind))
            words = {word for one in kinds for word in get_args(one) if isinstance(word, str)}
            yield f"{path}{name}", words


def test_base_says_every_word_that_a_setting_takes() -> None:
    told = {name: f"{default} {meaning}" for name, default, meaning in readme_tables.settings()}
    untold = [
        (name, word)
        for name, words in choices(Settings)
        for word in sorted(words)
        if not re.search(rf"\b{word}\b", told[name])
    ]
    assert untold == []


class TestLiveEdge:
    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("mode", "replay", "websocket.mode: Input should be 'alpaca' or 'recycler' (got 'replay')"),
            ("feed", "otc", "websocket.feed: Input should be 'iex', 'sip' or 'test'"),
            ("metrics_port", "70000", "websocket.metrics_port: Input should be less than or equal to 65535"),
            ("recycler__proxies", "PDFS=AAPL", "write lists and mappings as JSON"),
            ("recycler__replay_mode", "once", "Input should be 'loop', 'date_range' or 'single_pass'"),
            ("recycler__replay_speed", "fast", "use a positive number (1.0 = one bar a minute) or max"),
            ("recycler__replay_speed", "0", "use a positive number"),
            ("recycler__replay_speed", "nan", "use a positive number"),
            ("recycler__loop_count", "0", "0 replays nothing; give a number of passes, or -1 for ever"),
            ("recycler__loop_count", "-2", "greater than or equal to -1"),
            ("recycler__server_url", "http://127.0.0.1:8765", "write ws://host:port or wss://host:port"),
            ("recycler__server_url", "ws://127.0.0.1:8765/v2/iex", "without a path"),
            ("recycler__server_url", "wss://127.0.0.1:8765", "needs tls_certificate and tls_key"),
            (
                "recycler__server_url",
                "ws://127.0.0.1:99999",
                "Port out of range 0-65535; write ws://host:port",
            ),
            ("recycler__clock", "utc", "Input should be 'live' or 'historical'"),
            ("recycler__session_gaps", "yes", "Input should be 'skip' or 'keep'"),
            ("symbols", "aapl,MSFT", "symbol 'aapl' is malformed; write AAPL"),
            ("symbols", "*,MSFT", "symbol '*' is malformed"),
            ("recycler__symbols", "sim01", "symbol 'sim01' is malformed; write SIM01"),
            ("recycler__default_proxy", "spy", "symbol 'spy' is malformed; write SPY"),
            ("recycler__proxies", '{"PDFS": "aapl"}', "symbol 'aapl' is malformed; write AAPL"),
            ("url", "foo", "url 'foo' is no stream of feed iex; write wss://host/v2/iex"),
            ("url", "http://localhost/v2/iex", "is no stream of feed iex"),
            ("url", "ws://10.0.0.9/v2/iex", "ws:// on the loopback interface only"),
            ("url", "wss://stream.example/v2/sip", "no stream of feed iex; write wss://host/v2/iex"),
            ("recycler__tls_key", "key.pem", "tls_certificate and tls_key belong together"),
            ("recycler__faults__drop", "1.5", "less than or equal to 1"),
        ],
    )
    def test_wrong_value_is_named_with_those_allowed(
        self, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
    ) -> None:
        monkeypatch.setenv(f"GARCH_WEBSOCKET__{name.upper()}", value)
        with pytest.raises(ConfigurationError) as refused:
            load_settings()
        assert message in str(refused.value)

    def test_a_star_stands_for_all(self) -> None:
        websocket = load_settings(websocket={"symbols": ["*"], "recycler": {"symbols": "*"}}).websocket
        assert (websocket.symbols, websocket.recycler.symbols) == ([], [])

    @pytest.mark.parametrize("url", ["wss://stream.example:8443/v2/sip", "ws://127.0.0.1:9/v2/sip"])
    def test_stream_of_another_server(self, url: str) -> None:
        assert load_settings(websocket={"url": url, "feed": "sip"}).websocket.url == url

    def test_empty_credential_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GARCH_RECYCLER_SECRET", "")
        with pytest.raises(ConfigurationError, match="GARCH_RECYCLER_SECRET is set and empty"):
            load_secrets()

    def test_date_range_needs_its_dates_in_order(self) -> None:
        recycler = {"replay_mode": "date_range", "date_range": {"start_date": "2018-03-02", "end_date": None}}
        with pytest.raises(ConfigurationError, match="needs date_range"):
            load_settings(websocket={"recycler": recycler})
        recycler["date_range"] = {"start_date": "2018-03-02", "end_date": "2018-03-01"}
        with pytest.raises(ConfigurationError, match="2018-03-01 is before start_date 2018-03-02"):
            load_settings(websocket={"recycler": recycler})

    def test_the_environment_wins(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in {
            "MODE": "alpaca",
            "SYMBOLS": '["AAPL", "MSFT"]',
            "RECYCLER__REPLAY_SPEED": "max",
            "RECYCLER__SERVER_URL": "ws://127.0.0.1:9000",
            "RECYCLER__PROXIES": '{"PDFS": "MSFT"}',
        }.items():
            monkeypatch.setenv(f"GARCH_WEBSOCKET__{name}", value)
        websocket = load_settings().websocket
        assert (websocket.mode, websocket.symbols) == ("alpaca", ["AAPL", "MSFT"])
        assert (websocket.recycler.replay_speed, websocket.recycler.port) == ("max", 9000)
        assert websocket.recycler.proxies == {"PDFS": "MSFT"}

    @pytest.mark.parametrize("value", ["AAPL,MSFT", " AAPL , MSFT,", '["AAPL", "MSFT"]'])
    def test_a_list_in_a_variable(self, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
        monkeypatch.setenv("GARCH_WEBSOCKET__SYMBOLS", value)
        monkeypatch.setenv("GARCH_WEBSOCKET__RECYCLER__SYMBOLS", value)
        websocket = load_settings().websocket
        assert websocket.symbols == websocket.recycler.symbols == ["AAPL", "MSFT"]

    def test_secrets_come_from_the_environment_and_are_never_shown(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("APCA_API_KEY_ID", "APCA_API_SECRET_KEY", "GARCH_RECYCLER_KEY", "GARCH_RECYCLER_SECRET"):
            monkeypatch.delenv(name, raising=False)
        assert load_secrets().missing() == ["APCA_API_KEY_ID", "APCA_API_SECRET_KEY"]
        (folder / ".env").write_text("APCA_API_KEY_ID=PKFILE\n")
        monkeypatch.setenv("APCA_API_SECRET_KEY", "hidden-secret")
        secrets = load_secrets()
        assert (secrets.missing(), secrets.has_alpaca, secrets.recycler_is_default) == ([], True, True)
        assert "PKFILE" not in repr(secrets)
        assert "hidden" not in f"{secrets} {secrets!r} {secrets.model_dump_json()}"
