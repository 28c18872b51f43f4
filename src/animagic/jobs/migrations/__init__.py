"""The versions of the database, each a step that brings an older one up to date. Run by `animagic.jobs.database`."""
