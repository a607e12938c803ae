-- Who may use the HTTP service, by `chronicle keys`. A key is 256 random bits that nobody keeps: only their SHA-256 is here,
-- which is enough for a secret that cannot be guessed. A limit that is empty does not limit. The newest version of a key counts.
CREATE TABLE IF NOT EXISTS {database}.api_keys{on_cluster}
(
    `id` String,
    `name` String,
    `hash` String,
    `roles` Array(LowCardinality(String)),
    `sources` Array(String),
    `tables` Array(String),
    `tenants` Array(String),
    `columns` Array(String),
    `created_at` DateTime64(6, 'UTC'),
    `expires_at` Nullable(DateTime64(6, 'UTC')),
    `revoked_at` Nullable(DateTime64(6, 'UTC')),
    `version` DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = ReplacingMergeTree(version)
ORDER BY id;
