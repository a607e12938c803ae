-- What processors say somebody should look at. Columns as in `model.alerts.ALERTS` (a test holds them equal). The same
-- alert again (redelivery, reprocessing, more of the same transaction) has the same alert_id and replaces itself: read
-- with FINAL. Joins with changes by event_id.
CREATE TABLE IF NOT EXISTS {database}.alerts{on_cluster}
(
    `alert_id` UUID,
    `rule` LowCardinality(String),
    `severity` LowCardinality(String),
    `title` String,
    `processor` LowCardinality(String),
    `source` LowCardinality(String),
    `schema` LowCardinality(String),
    `table` LowCardinality(String),
    `operation` LowCardinality(String),
    `entity` UUID,
    `event_id` UUID,
    `transaction_id` Nullable(String),
    `actor_id` Nullable(String),
    `tenant` LowCardinality(Nullable(String)),
    `occurred_at` DateTime64(6, 'UTC'),
    `raised_at` DateTime64(6, 'UTC'),
    `extra` Nullable(String),
    `inserted_at` DateTime64(6, 'UTC') DEFAULT now64(6),
    INDEX occurred_index occurred_at TYPE minmax GRANULARITY 1,
    INDEX event_index event_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(raised_at)
ORDER BY (rule, alert_id);
