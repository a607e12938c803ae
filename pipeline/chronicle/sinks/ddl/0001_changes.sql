-- Every change of every source, one row each. Columns as in `model.columns.CHANGES` (a test holds them equal).
-- A change that comes again (redelivery, reprocessing) has the same event_id and committed_at, so it replaces itself:
-- read with FINAL. FINAL is exact over partitions, too, for a snapshot repeated at an unchanged position in a new month.
CREATE TABLE IF NOT EXISTS {database}.changes{on_cluster}
(
    `event_id` UUID,
    `source` LowCardinality(String),
    `connector` LowCardinality(String),
    `schema` LowCardinality(String),
    `table` LowCardinality(String),
    `entity` UUID,
    `operation` LowCardinality(String),
    `key` String,
    `previous_key` Nullable(String),
    `previous_entity` Nullable(UUID),
    `before` Nullable(String) CODEC(ZSTD(3)),
    `after` Nullable(String) CODEC(ZSTD(3)),
    `before_known` Bool,
    `changed` Array(LowCardinality(String)),
    `unavailable` Array(LowCardinality(String)),
    `epoch` UInt8,
    `position` UInt128,
    `transaction_id` Nullable(String),
    `transaction_order` Nullable(UInt64),
    `topic` LowCardinality(String),
    `partition` UInt32,
    `offset` UInt64,
    `schema_id` UInt32,
    `committed_at` DateTime64(6, 'UTC'),
    `captured_at` DateTime64(6, 'UTC'),
    `received_at` DateTime64(3, 'UTC'),
    `processed_at` DateTime64(6, 'UTC'),
    `inserted_at` DateTime64(6, 'UTC') DEFAULT now64(6),
    INDEX key_index key TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX transaction_index transaction_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX event_index event_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX committed_index committed_at TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree(processed_at)
PARTITION BY toYYYYMM(committed_at)
ORDER BY (source, schema, table, entity, event_id);
