-- The platform's tables live in the database that POSTGRES_DB names; Dagster's storage has its own,
-- because both keep a table called alembic_version.
CREATE DATABASE dagster;
