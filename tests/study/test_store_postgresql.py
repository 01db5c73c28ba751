"""What only a store on PostgreSQL has: an address with a password, a server's settings, rights, versions."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from stores import SUGGESTED, Stores

from hpsearch.errors import HpsearchError, Interrupted, ServiceUnavailable, UsageError
from hpsearch.study.home import Home
from hpsearch.study.postgresql import lease_of, names, parse_address, shown
from hpsearch.study.trial import Entry, Measurement

CANARY = "canary-of-the-store-4711"


@pytest.fixture
def stores(postgres: Any, tmp_path: Path) -> Stores:
    return Stores(Home(tmp_path, postgres.make_database()))


def database_of(stores: Stores) -> str:
    assert stores.home.store
    return stores.home.store.rpartition("/")[2]


def test_the_settings_that_make_commits_durable_and_dead_servers_noticed_are_in_force(stores: Stores) -> None:
    store = stores.new()
    reader = stores.home.reader("s")
    names = ("synchronous_commit", "fsync", "transaction_isolation", "transaction_read_only", "lock_timeout")
    names += ("idle_in_transaction_session_timeout", "tcp_user_timeout", "statement_timeout")
    asked = "SELECT " + ", ".join(f"current_setting('{name}')" for name in names)
    found = {}
    for key, engine in (("writer", store._engine), ("reader", reader._engine)):
        with engine.connect() as connection:
            found[key] = tuple(connection.exec_driver_sql(asked).one())
            parameters = connection.connection.dbapi_connection.info.get_parameters()  # type: ignore[union-attr]
            assert parameters["connect_timeout"] == "5"
            assert parameters["tcp_user_timeout"] == "10000"
            assert parameters["keepalives_idle"] == "5"
    assert found["writer"] == ("on", "on", "read committed", "off", "10s", "5s", "10000", "5min")
    assert found["reader"] == ("on", "on", "repeatable read", "on", "10s", "5min", "10000", "5min")
    reader.close()
    store.close()


def test_a_server_that_may_forget_what_it_acknowledged_is_refused(stores: Stores, postgres: Any) -> None:
    postgres.run("postgres", "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")
    try:
        deadline = time.monotonic() + 10
        while postgres.run("postgres", "SHOW fsync") != [("off",)]:
            assert time.monotonic() < deadline
        with pytest.raises(UsageError, match="says fsync=off where on is needed"):
            stores.new()
    finally:
        postgres.run("postgres", "ALTER SYSTEM RESET fsync", "SELECT pg_reload_conf()")
        while postgres.run("postgres", "SHOW fsync") != [("on",)]:
            pass


def test_a_role_that_makes_no_tables_writes_where_they_are(stores: Stores, postgres: Any) -> None:
    database = database_of(stores)
    role = f"writer_{database}"
    password = postgres.password
    postgres.run(database, f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")
    home = Home(stores.home.directory, postgres.url(database, user=role))
    with pytest.raises(UsageError, match="permission denied for schema public"):
        Stores(home).new("s-1")
    stores.new("s-2").close()
    postgres.run(database, f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {role}")
    store = Stores(home).new("s-3")
    store.commit(SUGGESTED)
    store.close()
    again = home.open("s-3")
    assert again.take(9).epoch == 2
    again.close()
    assert home.names() == ["s-2", "s-3"]


def test_a_database_with_other_tables_of_these_names_is_refused_and_left_alone(
    stores: Stores, postgres: Any
) -> None:
    postgres.run(database_of(stores), "CREATE TABLE trial (patient text)")
    assert stores.home.names() == []
    with pytest.raises(UsageError, match="already exists"):
        stores.new()
    found = postgres.run(database_of(stores), "SELECT relname FROM pg_stat_user_tables")
    assert found == [("trial",)]


def test_tables_of_another_version_are_refused(stores: Stores, postgres: Any) -> None:
    stores.new().close()
    postgres.run(database_of(stores), "UPDATE hpsearch_store SET schema_version = 1")
    for ask in (stores.home.names, lambda: stores.home.open("s"), lambda: stores.made("t")):
        with pytest.raises(UsageError, match="tables of schema version 1"):
            ask()


def test_a_study_is_not_put_into_the_directory_of_one_that_has_its_own_file(stores: Stores) -> None:
    Stores(Home(stores.home.directory)).new("s").close()
    with pytest.raises(UsageError, match="directory of another study 's'"):
        stores.new("s")
    assert stores.home.free_name("s") == "s-1"


@pytest.mark.parametrize(
    "address",
    ["postgresql://{0}", "postgres://{0}", "postgresql+psycopg://{0}", "postgresql://{0}?sslmode=prefer"],
)
def test_addresses_of_a_database_are_taken(postgres: Any, address: str) -> None:
    plain = postgres.url("postgres").partition("://")[2]
    url = parse_address(address.format(plain))
    assert shown(url) == f"postgresql://127.0.0.1:{postgres.port}/postgres"
    assert names(url) == []


BAD = ["mysql://u:{0}@h/d", "sqlite:///x.db", "postgresql:/u:{0}@h/d", "{0}", "postgresql://u:{0}@h:port/d"]


@pytest.mark.parametrize("address", BAD)
def test_an_address_of_anything_else_is_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="HPSEARCH_STORE") as caught:
        Home(tmp_path, address.format("hunter2")).names()
    assert address == "{0}" or "hunter2" not in str(caught.value)


@pytest.mark.parametrize("given", ["0.1", "3601", "-1", "inf", "nan", "", "30s"])
def test_a_lease_is_between_half_a_second_and_an_hour(given: str) -> None:
    with pytest.raises(UsageError, match="HPSEARCH_LEASE"):
        lease_of({"HPSEARCH_LEASE": given})
    assert (lease_of({}), lease_of({"HPSEARCH_LEASE": "2.5"})) == (30, 2.5)


def test_a_server_that_cannot_be_reached_is_named_without_user_and_password(
    postgres: Any, tmp_path: Path
) -> None:
    wrong = f"postgresql://keeper:{CANARY}@127.0.0.1"
    cases = {
        f"{wrong}:{postgres.port}/postgres": "password authentication failed",
        f"{wrong}:1/postgres": "refused",
        f"{wrong}:{postgres.port}/postgres?options=-cx%3D1": "",
        postgres.url("nothing_here"): "does not exist",
    }
    for address, expected in cases.items():
        began = time.monotonic()
        home = Home(tmp_path, address)
        for ask in (home.names, lambda home=home: home.open("s"), lambda home=home: home.is_owned("s")):
            with pytest.raises(ServiceUnavailable) as caught:
                ask()
            text = f"{caught.value} {caught.value!r} {caught.value.__cause__!r} {home!r}"
            assert expected in text
            assert CANARY not in text
            assert postgres.password not in text
        assert time.monotonic() - began < 8


def test_the_password_is_nowhere_but_in_the_address(
    stores: Stores, postgres: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    store = stores.new()
    store.commit(SUGGESTED)
    database = database_of(stores)
    texts = [repr(store._database), store._database.place, repr(store._engine), repr(stores.home)]
    with pytest.raises(Interrupted) as refused:
        store.commit([Entry(0, Measurement(2**70, {"loss": 1.0}, 7))])
    texts += [str(refused.value), repr(refused.value.__cause__)]
    store.close()
    postgres.run(database, "ALTER TABLE measurement RENAME TO elsewhere")
    with pytest.raises(HpsearchError) as missing:
        stores.home.history("s")
    texts += [str(missing.value), repr(missing.value.__cause__)]
    dump = b"".join(path.read_bytes() for path in stores.home.directory.rglob("*") if path.is_file())
    with psycopg.connect(postgres.url(database)) as connection:
        tables = [row[0] for row in connection.execute("SELECT relname FROM pg_stat_user_tables")]
        for table in tables:
            texts += map(str, connection.execute(f'SELECT * FROM "{table}"').fetchall())
    assert len(tables) > 8
    assert any("uid of s" in text for text in texts)
    secret = postgres.password
    assert secret not in "".join(texts)
    assert secret.encode() not in dump
    assert secret not in caplog.text
