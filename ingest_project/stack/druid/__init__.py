"""An Apache Druid of one's own: its services from Maven artifacts, on loopback, everything below `<data>/druid`."""
