-- Every policy that rows were written under, by its hash: the file as it was read, which holds no secrets. Each row of
-- `changes` names its hash. A policy that comes again, also with other comments, merges with itself.
CREATE TABLE IF NOT EXISTS {database}.policies{on_cluster}
(
    `hash` String,
    `name` SimpleAggregateFunction(anyLast, String),
    `text` SimpleAggregateFunction(anyLast, String),
    `first_seen` SimpleAggregateFunction(min, DateTime64(6, 'UTC')),
    `last_seen` SimpleAggregateFunction(max, DateTime64(6, 'UTC'))
)
ENGINE = AggregatingMergeTree
ORDER BY hash;
