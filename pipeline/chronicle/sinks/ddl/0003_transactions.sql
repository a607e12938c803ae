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
