-- What applications say themselves, one row an event. Columns as in `model.event_columns.EVENTS` (a test holds them equal).
-- An event that is sent again has the same source, tenant, type and event_id and replaces itself: read with FINAL, which is
-- exact over partitions, too. No tenant and an empty one are one; who knows an id of another tenant's cannot replace it.
-- Partitions are months of `time`. The application says the time, and a part for each month from 1900 to 2299 would be 4,800
-- parts a batch: what lies further from its processing than 366 days back or a day ahead is all together in partition 0 (by
-- the worker's clock: a record's time may be the application's, too). A batch is in 15 partitions at most (20,000 random times:
-- 13 parts in 0.2 s; by month alone 4,501 in 8.2 s). Months of received_at would be as few, but no month of `time` would be
-- together, and an event that comes again in another month would be in two.
-- `inserted_index` is the live tails': of 1.2 million events in one part, 3 of 151 granules are read for the newest thousand.
-- FINAL reads all partitions; whoever knows that each event has one time may skip the other months with
-- do_not_merge_across_partitions_select_final = 1 (one of 24 months, 1.2 million events: 0.01 s instead of 0.6 to 1.2 s).
CREATE TABLE IF NOT EXISTS {database}.events{on_cluster}
(
    `event_id` UUID,
    `type` LowCardinality(String),
    `time` DateTime64(6, 'UTC'),
    `source` LowCardinality(String),
    `action` LowCardinality(Nullable(String)),
    `resource_type` LowCardinality(Nullable(String)),
    `resource_id` Nullable(String),
    `outcome` LowCardinality(Nullable(String)),
    `priority` LowCardinality(String),
    `tenant` LowCardinality(Nullable(String)),
    `actor_id` Nullable(String),
    `actor_type` LowCardinality(Nullable(String)),
    `actor_name` Nullable(String),
    `description` Nullable(String),
    `reason` Nullable(String),
    `request_id` Nullable(String),
    `trace_id` Nullable(String),
    `span_id` Nullable(String),
    `ip` Nullable(String),
    `session` Nullable(String),
    `payload` Nullable(String) CODEC(ZSTD(3)),
    `tags` Nullable(String),
    `labels` Array(LowCardinality(String)),
    `violations` Array(LowCardinality(String)),
    `policy` LowCardinality(String),
    `topic` LowCardinality(String),
    `partition` UInt32,
    `offset` UInt64,
    `received_at` DateTime64(3, 'UTC'),
    `processed_at` DateTime64(6, 'UTC'),
    `inserted_at` DateTime64(6, 'UTC') DEFAULT now64(6),
    INDEX event_index event_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX time_index time TYPE minmax GRANULARITY 1,
    INDEX inserted_index inserted_at TYPE minmax GRANULARITY 1,
    INDEX actor_index actor_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX request_index request_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX resource_index resource_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(processed_at)
PARTITION BY if(time >= processed_at - toIntervalDay(366) AND time <= processed_at + toIntervalDay(1), toYYYYMM(time), 0)
ORDER BY (source, type, ifNull(tenant, ''), event_id);

-- Everything that happened, changes and events, in one shape: who did what to what, in which request. Stubs are left out, as
-- on the audit topic; snapshot rows are in (action `snapshot`). Order by time; of changes of one source position is the order.
-- A change's type is that of routes: `<source>.<schema>.<table>.<operation>`, each name one word.
CREATE VIEW IF NOT EXISTS {database}.audit_trail{on_cluster} AS
SELECT
    CAST('change' AS LowCardinality(String)) AS kind,
    event_id,
    committed_at AS time,
    source,
    CAST(arrayStringConcat(arrayMap(word -> replaceRegexpAll(word, '[.*#\\s]', '_'), [toString(source), toString(schema), toString(table), toString(operation)]), '.') AS LowCardinality(String)) AS type,
    CAST(operation AS LowCardinality(Nullable(String))) AS action,
    CAST(concat(schema, '.', table) AS LowCardinality(Nullable(String))) AS resource_type,
    CAST(nullIf(key, '') AS Nullable(String)) AS resource_id,
    CAST(NULL AS LowCardinality(Nullable(String))) AS outcome,
    CAST(actor_id AS Nullable(String)) AS actor_id,
    CAST(actor_type AS LowCardinality(Nullable(String))) AS actor_type,
    CAST(actor_name AS Nullable(String)) AS actor_name,
    CAST(request_id AS Nullable(String)) AS request_id,
    CAST(NULL AS Nullable(String)) AS trace_id,
    CAST(reason AS Nullable(String)) AS reason,
    CAST(ip AS Nullable(String)) AS ip,
    CAST(session AS Nullable(String)) AS session,
    CAST(tenant AS LowCardinality(Nullable(String))) AS tenant,
    CAST(tags AS Nullable(String)) AS tags,
    labels,
    CAST(NULL AS Nullable(String)) AS description,
    before,
    after,
    changed,
    CAST(NULL AS Nullable(String)) AS payload,
    CAST(attribution AS LowCardinality(String)) AS attribution,
    policy,
    position
FROM {database}.attributed_changes
WHERE stub = ''
UNION ALL
SELECT
    CAST('event' AS LowCardinality(String)),
    event_id,
    time,
    source,
    type,
    action,
    resource_type,
    resource_id,
    outcome,
    actor_id,
    actor_type,
    actor_name,
    request_id,
    trace_id,
    reason,
    ip,
    session,
    tenant,
    tags,
    labels,
    description,
    CAST(NULL AS Nullable(String)),
    CAST(NULL AS Nullable(String)),
    CAST([] AS Array(LowCardinality(String))),
    payload,
    CAST('event' AS LowCardinality(String)),
    policy,
    toUInt128(0)
FROM {database}.events FINAL;
