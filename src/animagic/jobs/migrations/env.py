"""What Alembic runs: the migrations, inside the connection and the transaction that it is given."""

from alembic import context

from animagic.jobs.tables import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSION_TABLE,
    transactional_ddl=True,  # Alembic has it off for SQLite; in a transaction that has begun, SQLite can do it
)
with context.begin_transaction():
    context.run_migrations()
