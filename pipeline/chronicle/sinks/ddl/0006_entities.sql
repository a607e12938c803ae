-- Reference data as `chronicle.entities` has it, kept by the workers; the topic is the truth. `changes.enriched` holds what was
-- known when a change was processed; here is what is known now. The record's time and offset are the version: what several
-- workers write of the same record is the same row.
CREATE TABLE IF NOT EXISTS {database}.entities{on_cluster}
(
    `id` String,
    `name` String,
    `metadata` String CODEC(ZSTD(3)),
    `deleted` Bool,
    `put_at` DateTime64(3, 'UTC'),
    `offset` UInt64,
    `version` UInt128 MATERIALIZED bitOr(bitShiftLeft(toUInt128(toUnixTimestamp64Milli(put_at)), 64), toUInt128(offset)),
    `inserted_at` DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = ReplacingMergeTree(version)
ORDER BY id;

-- For joins: ... LEFT JOIN entities_current AS e ON e.id = JSONExtractString(enriched, 'customer', 'id')
CREATE VIEW IF NOT EXISTS {database}.entities_current{on_cluster} AS
SELECT id, name, metadata, put_at
FROM {database}.entities FINAL
WHERE NOT deleted;
