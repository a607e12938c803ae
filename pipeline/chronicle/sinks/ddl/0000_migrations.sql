-- Which numbered files were applied, and what was in them. Run at every setup; the others run once.
CREATE TABLE IF NOT EXISTS {database}.migrations{on_cluster}
(
    `name` String,
    `hash` String,
    `applied_at` DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = ReplacingMergeTree(applied_at)
ORDER BY name;
