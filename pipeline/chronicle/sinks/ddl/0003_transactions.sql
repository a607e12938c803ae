-- What the transaction topics say of each transaction. Every column merges idempotently: a record may come again.
CREATE TABLE IF NOT EXISTS {database}.transactions{on_cluster}
(
    `source` LowCardinality(String),
    `epoch` UInt8,
    `transaction_id` String,
    `began_at` SimpleAggregateFunction(min, Nullable(DateTime64(6, 'UTC'))),
    `ended_at` SimpleAggregateFunction(max, Nullable(DateTime64(6, 'UTC'))),
    `event_count` SimpleAggregateFunction(max, Nullable(UInt64)),
    `tables` SimpleAggregateFunction(maxMap, Map(String, UInt64)),
    `begins` SimpleAggregateFunction(groupUniqArrayArray, Array(UInt64)),
    `best_context` SimpleAggregateFunction(max, Tuple(rank UInt8, at UInt64, text String)),
    `processed_at` SimpleAggregateFunction(max, DateTime64(6, 'UTC')),
    `inserted_at` SimpleAggregateFunction(max, DateTime64(6, 'UTC')) DEFAULT now64(6)
)
ENGINE = AggregatingMergeTree
ORDER BY (source, transaction_id, epoch);

-- Expected against seen. Debezium's counts are a hint: a BEGIN seen twice, or none (a restart), makes them wrong.
CREATE VIEW IF NOT EXISTS {database}.transaction_status{on_cluster} AS
SELECT
    t.source AS source,
    t.epoch AS epoch,
    t.transaction_id AS transaction_id,
    t.began_at AS began_at,
    t.ended_at AS ended_at,
    nullIf(tupleElement(t.best_context, 'text'), '') AS context,
    multiIf(tupleElement(t.best_context, 'rank') = 2, 'message', tupleElement(t.best_context, 'rank') = 1, 'table', NULL) AS rung,
    t.tables AS tables,
    t.event_count AS expected,
    c.seen AS seen,
    multiIf(
        t.ended_at IS NULL, 'open',
        seen = expected, 'complete',
        length(t.begins) != 1 OR seen > expected, 'uncertain',
        'partial') AS status
FROM {database}.transactions AS t FINAL
LEFT JOIN
(
    SELECT source, epoch, assumeNotNull(transaction_id) AS transaction_id, uniqExact(event_id) AS seen
    FROM {database}.changes
    WHERE transaction_id IS NOT NULL
    GROUP BY source, epoch, transaction_id
) AS c ON t.source = c.source AND t.epoch = c.epoch AND t.transaction_id = c.transaction_id;
