-- The demo's recruiting on MariaDB: what an application would have, and the three tables Chronicle asks for.
CREATE TABLE campaigns (
    id        INT AUTO_INCREMENT PRIMARY KEY,
    title     VARCHAR(120) NOT NULL,
    budget    DECIMAL(12, 2) NOT NULL,
    status    ENUM ('draft', 'open', 'closed') NOT NULL DEFAULT 'draft',
    opens_on  DATE,
    settings  JSON,
    closes_at DATETIME(6)
) CHARACTER SET utf8mb4;

CREATE TABLE candidates (
    id         BIGINT PRIMARY KEY,
    email      VARCHAR(200) NOT NULL,
    name       VARCHAR(120) NOT NULL,
    phone      VARCHAR(40) DEFAULT 'unlisted',  -- NULL beside a default: an explicit NULL must stay NULL
    score      DECIMAL(6, 3),
    resume     TEXT,
    api_token  VARCHAR(64),                      -- looks secret: [FILTERED] in the trail, absent from the mirror
    created_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)
) CHARACTER SET utf8mb4;

CREATE TABLE applications (
    campaign_id  INT NOT NULL,
    candidate_id BIGINT NOT NULL,
    stage        ENUM ('received', 'interview', 'offer', 'hired', 'rejected') NOT NULL DEFAULT 'received',
    rating       SMALLINT,
    salary       DECIMAL(12, 2),
    note         VARCHAR(400),
    applied_at   DATETIME(3) NOT NULL,
    PRIMARY KEY (campaign_id, candidate_id)
) CHARACTER SET utf8mb4;

CREATE TABLE chronicle_signal (id VARCHAR(64) PRIMARY KEY, type VARCHAR(32) NOT NULL, data TEXT);
CREATE TABLE chronicle_context (id BIGINT AUTO_INCREMENT PRIMARY KEY, context LONGTEXT NOT NULL) CHARACTER SET utf8mb4;
CREATE TABLE chronicle_outbox (
    id            CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    topic         VARCHAR(200) NOT NULL DEFAULT '',
    partition_key TEXT NOT NULL,
    event         LONGTEXT NOT NULL
) CHARACTER SET utf8mb4;
