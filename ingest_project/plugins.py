"""The plugins that come with Headgate: kind -> where its class stands, loaded at first use."""

CONNECTORS: dict[str, str] = {
    "files": "connectors.files:FilesConnector",
    "optimade": "connectors.materials.optimade:OptimadeConnector",
}

SINKS: dict[str, str] = {
    "objects": "sinks.objects:ObjectsSink",
    "catalog": "sinks.catalog:CatalogSink",
    "postgres": "sinks.postgres:PostgresSink",
    "mysql": "sinks.mysql:MySQLSink",
    "sqlite": "sinks.sqlite:SqliteSink",
}
