-- What a reader asks: each change with the best answer to who did it, a context that came late included; and which rows of
-- a transaction are still missing. Contexts are stored in one form (`stages.attribute.stored`), the policy applied already.
-- `pending` after the END was read is `none`: the contexts of a transaction stand before its END.
-- `transaction_key` is transaction_id, empty where there is none: the same type on both sides, so that what a query asks of it
-- reaches the primary key of `transactions` (readers: `trail.filters`). What a message said cannot be told better: such changes
-- are not looked up.
CREATE VIEW IF NOT EXISTS {database}.attributed_changes{on_cluster} AS
WITH
    transform(c.attribution, ['message', 'table', 'comment', 'row'], [4, 3, 2, 1], 0) AS rank,
    transform(said_rank, [2, 1], [4, 3], 0) AS late_rank,
    c.operation != 'snapshot' AND late_rank > rank AS is_late,
    JSONType(said, 'actor') = 'Object' AS is_object
SELECT
    c.* EXCEPT (actor_id, actor_type, actor_name, request_id, reason, ip, session, tenant, tags, attribution, attributed_at),
    if(is_late, nullIf(if(is_object, JSONExtractString(said, 'actor', 'id'), JSONExtractString(said, 'actor')), ''), c.actor_id) AS actor_id,
    if(is_late, nullIf(JSONExtractString(said, 'actor', 'type'), ''), c.actor_type) AS actor_type,
    if(is_late, nullIf(JSONExtractString(said, 'actor', 'name'), ''), c.actor_name) AS actor_name,
    if(is_late, nullIf(JSONExtractString(said, 'request_id'), ''), c.request_id) AS request_id,
    if(is_late, nullIf(JSONExtractString(said, 'reason'), ''), c.reason) AS reason,
    if(is_late, nullIf(JSONExtractString(said, 'ip'), ''), c.ip) AS ip,
    if(is_late, nullIf(JSONExtractString(said, 'session'), ''), c.session) AS session,
    if(is_late, nullIf(JSONExtractString(said, 'tenant'), ''), c.tenant) AS tenant,
    if(is_late, nullIf(JSONExtractRaw(said, 'tags'), ''), c.tags) AS tags,
    multiIf(is_late, if(late_rank = 4, 'message', 'table'), c.attribution = 'pending' AND said_all, 'none', c.attribution) AS attribution,
    if(is_late, said_at, c.attributed_at) AS attributed_at,
    is_late AS attributed_late
FROM (SELECT *, ifNull(transaction_id, '') AS transaction_key FROM {database}.changes FINAL) AS c
LEFT JOIN
(
    SELECT
        source AS of_source,
        epoch AS of_epoch,
        transaction_id AS of_transaction,
        tupleElement(best_context, 'rank') AS said_rank,
        tupleElement(best_context, 'text') AS said,
        ended_at IS NOT NULL AS said_all,
        processed_at AS said_at
    FROM {database}.transactions FINAL
) AS t ON c.source = of_source AND c.epoch = of_epoch AND c.transaction_key = of_transaction AND c.attribution != 'message';

-- Expected against seen, by table. Debezium's counts are a hint: a BEGIN seen twice, or none (a restart), makes them wrong.
-- Every row of `changes` counts as seen, stubs included: that is what they are for.
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
    mapFilter((name, lacking) -> lacking > 0, mapApply((name, count) -> (name, if(count > c.seen_tables[name], count - c.seen_tables[name], 0)), t.tables)) AS missing,
    multiIf(
        t.ended_at IS NULL, 'open',
        seen = expected AND empty(mapKeys(missing)), 'complete',
        length(t.begins) != 1 OR seen >= expected, 'uncertain',
        'partial') AS status
FROM {database}.transactions AS t FINAL
LEFT JOIN
(
    SELECT source, epoch, transaction_id, sum(rows) AS seen, CAST(groupArray((name, rows)) AS Map(String, UInt64)) AS seen_tables
    FROM
    (
        SELECT source, epoch, assumeNotNull(transaction_id) AS transaction_id, concat(schema, '.', table) AS name, uniqExact(event_id) AS rows
        FROM {database}.changes
        WHERE transaction_id IS NOT NULL
        GROUP BY source, epoch, transaction_id, name
    )
    GROUP BY source, epoch, transaction_id
) AS c ON t.source = c.source AND t.epoch = c.epoch AND t.transaction_id = c.transaction_id;
