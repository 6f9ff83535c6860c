"""The plugins that come with Headgate: kind -> where its class stands, loaded at first use."""

CONNECTORS: dict[str, str] = {
    "files": "connectors.files:FilesConnector",
    "optimade": "connectors.materials.optimade:OptimadeConnector",
}

SINKS: dict[str, str] = {
    "objects": "sinks.objects.sink:ObjectsSink",
    "catalog": "sinks.catalog:CatalogSink",
    "druid": "sinks.druid.sink:DruidSink",
    "postgres": "sinks.postgres:PostgresSink",
    "mysql": "sinks.mysql:MySQLSink",
    "sqlite": "sinks.sqlite:SqliteSink",
}
