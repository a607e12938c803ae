-- Records that could not be processed: where they are and why, never what is in them (the topic keeps the bytes).
CREATE TABLE IF NOT EXISTS {database}.dead_letters{on_cluster}
(
    `topic` LowCardinality(String),
    `partition` UInt32,
    `offset` UInt64,
    `timestamp` DateTime64(3, 'UTC'),
    `stage` LowCardinality(String),
    `reason` LowCardinality(String),
    `detail` String,
    `schema_id` Nullable(UInt32),
    `key_bytes` Nullable(UInt64),
    `value_bytes` Nullable(UInt64),
    `version` LowCardinality(String),
    `failed_at` DateTime64(6, 'UTC'),
    `inserted_at` DateTime64(6, 'UTC') DEFAULT now64(6),
    INDEX reason_index reason TYPE set(32) GRANULARITY 1,
    INDEX failed_index failed_at TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree(failed_at)
ORDER BY (topic, partition, offset, reason);
