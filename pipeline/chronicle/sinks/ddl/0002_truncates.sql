-- The last TRUNCATE of each table: what a mirror's view compares its rows with, without reading all changes.
CREATE TABLE IF NOT EXISTS {database}.truncates{on_cluster}
(
    `source` LowCardinality(String),
    `schema` LowCardinality(String),
    `table` LowCardinality(String),
    `position` SimpleAggregateFunction(max, UInt128)
)
ENGINE = AggregatingMergeTree
ORDER BY (source, schema, table);

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.truncates_of_changes{on_cluster} TO {database}.truncates AS
SELECT source, schema, table, position
FROM {database}.changes
WHERE operation = 'truncate';
