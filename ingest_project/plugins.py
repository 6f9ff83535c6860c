"""The plugins that come with Headgate: kind -> where its class stands, loaded at first use."""

CONNECTORS: dict[str, str] = {
    "files": "connectors.files:FilesConnector",
    "optimade": "connectors.materials.optimade:OptimadeConnector",
}

SINKS: dict[str, str] = {
    "objects": "sinks.objects.sink:ObjectsSink",
    "catalog": "sinks.catalog:CatalogSink",
    "druid": "sinks.druid.sink:DruidSink",
    "postgres": "sinks.relational.postgres.sink:PostgresSink",
    "mysql": "sinks.relational.mysql.sink:MySQLSink",
    "sqlite": "sinks.relational.sqlite.sink:SqliteSink",
}

OWN_KINDS: dict[str, str] = {
    "uploads": "files",
    "demo-optimade": "optimade",
    "lake": "objects",
    "catalog": "catalog",
    "druid": "druid",
}
"""The kinds of the sources and destinations that Headgate makes by itself, by their names."""
