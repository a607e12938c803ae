-- The demo's shop on PostgreSQL: what an application would have, and the three tables Chronicle asks for.
CREATE TYPE order_status AS ENUM ('placed', 'paid', 'shipped', 'returned');

CREATE SEQUENCE order_number;

CREATE TABLE customers (
    id          integer PRIMARY KEY,
    email       text NOT NULL,
    name        text NOT NULL,
    tier        text DEFAULT 'standard',  -- NULL beside a default: an explicit NULL must stay NULL
    credit      numeric(12, 2) NOT NULL DEFAULT 0.00,
    tags        text[] NOT NULL DEFAULT '{}',
    preferences jsonb,
    born_on     date,
    password    text,                      -- looks secret: [FILTERED] in the trail, absent from the mirror
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE orders (
    id          uuid PRIMARY KEY,
    customer_id integer NOT NULL REFERENCES customers (id) ON UPDATE CASCADE ON DELETE CASCADE,
    status      order_status NOT NULL DEFAULT 'placed',
    total       numeric(14, 2) NOT NULL,
    gift        boolean NOT NULL DEFAULT false,
    note        text,
    placed_at   timestamp NOT NULL DEFAULT now(),
    shipped_on  date
);
CREATE INDEX ON orders (customer_id);

CREATE TABLE order_items (
    order_id    uuid NOT NULL,
    line        smallint NOT NULL,
    sku         text NOT NULL,
    quantity    bigint NOT NULL,
    price       numeric(10, 4) NOT NULL,
    weight_kg   double precision,
    PRIMARY KEY (order_id, line)
);

-- The old row whole in every update and delete; without it the trail knows only the key.
ALTER TABLE customers REPLICA IDENTITY FULL;
ALTER TABLE orders REPLICA IDENTITY FULL;
ALTER TABLE order_items REPLICA IDENTITY FULL;

CREATE TABLE chronicle_signal (id varchar(64) PRIMARY KEY, type varchar(32) NOT NULL, data text);
CREATE TABLE chronicle_context (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, context text NOT NULL);
CREATE TABLE chronicle_outbox (id uuid PRIMARY KEY, topic text NOT NULL DEFAULT '', partition_key text NOT NULL, event text NOT NULL);
