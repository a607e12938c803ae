-- Tables of the fault workload on Postgres, and the triggers that write each row's truth in the row's own transaction.
-- Run once in an empty database. `truth` and the marker function are not captured.
SET client_min_messages = warning;
CREATE TYPE standing AS ENUM ('new', 'good', 'barred', 'it''s "quoted"');

-- identity key, REPLICA IDENTITY FULL, most types, NULLs beside defaults, a secret-looking column
CREATE TABLE accounts (
  id bigint PRIMARY KEY, name text NOT NULL, note text DEFAULT 'none', flag boolean DEFAULT true, small smallint, big bigint DEFAULT 42,
  balance numeric(12,2) NOT NULL DEFAULT 0, huge numeric(38,10), ratio double precision, share real,
  born date, seen_local timestamp, seen timestamptz DEFAULT '2024-01-01 00:00:00+00', alarm time,
  ref uuid, doc jsonb, raw json, tags text[] DEFAULT '{}', numbers integer[], bytes bytea, standing standing DEFAULT 'new',
  api_token text
);
ALTER TABLE accounts REPLICA IDENTITY FULL;

-- composite key, REPLICA IDENTITY FULL
CREATE TABLE lines (order_id bigint, line_no integer, product text NOT NULL, qty integer DEFAULT 1, price numeric(10,2), PRIMARY KEY (order_id, line_no));
ALTER TABLE lines REPLICA IDENTITY FULL;

-- text key with any character, REPLICA IDENTITY DEFAULT, a TOASTed column that most updates leave alone
CREATE TABLE codes (code text PRIMARY KEY, label text DEFAULT 'none', n integer NOT NULL, body text, seen timestamptz);
ALTER TABLE codes ALTER body SET STORAGE EXTERNAL;

-- TOASTed rows with REPLICA IDENTITY FULL
CREATE TABLE documents (id integer PRIMARY KEY, title text NOT NULL, body text, attachment bytea, n integer);
ALTER TABLE documents ALTER body SET STORAGE EXTERNAL, ALTER attachment SET STORAGE EXTERNAL;
ALTER TABLE documents REPLICA IDENTITY FULL;

-- 85 columns: the diff needs more than one 63-bit mask
CREATE TABLE wide (id integer PRIMARY KEY,
  c00 integer DEFAULT 7, c01 text, c02 numeric(14,3), c03 double precision, c04 boolean, c05 timestamptz,
  c06 bigint, c07 integer, c08 text, c09 numeric(14,3), c10 double precision, c11 boolean, c12 timestamptz,
  c13 bigint, c14 integer, c15 text DEFAULT 'none', c16 numeric(14,3), c17 double precision, c18 boolean,
  c19 timestamptz, c20 bigint, c21 integer, c22 text, c23 numeric(14,3), c24 double precision, c25 boolean,
  c26 timestamptz, c27 bigint, c28 integer, c29 text, c30 numeric(14,3), c31 double precision, c32 boolean,
  c33 timestamptz, c34 bigint, c35 integer DEFAULT 7, c36 text, c37 numeric(14,3), c38 double precision,
  c39 boolean, c40 timestamptz, c41 bigint, c42 integer, c43 text, c44 numeric(14,3), c45 double precision,
  c46 boolean, c47 timestamptz, c48 bigint, c49 integer, c50 text DEFAULT 'none', c51 numeric(14,3),
  c52 double precision, c53 boolean, c54 timestamptz, c55 bigint, c56 integer, c57 text, c58 numeric(14,3),
  c59 double precision, c60 boolean, c61 timestamptz, c62 bigint, c63 integer, c64 text, c65 numeric(14,3),
  c66 double precision, c67 boolean, c68 timestamptz, c69 bigint, c70 integer DEFAULT 7, c71 text, c72 numeric(14,3),
  c73 double precision, c74 boolean, c75 timestamptz, c76 bigint, c77 integer, c78 text, c79 numeric(14,3),
  c80 double precision, c81 boolean, c82 timestamptz, c83 bigint
);
ALTER TABLE wide REPLICA IDENTITY FULL;

-- no key: one with old rows, one that can only be inserted into
CREATE TABLE journal (at timestamptz NOT NULL, message text, n integer);
ALTER TABLE journal REPLICA IDENTITY FULL;
CREATE TABLE spool (n integer NOT NULL, payload text);

-- a unique column besides the key: commits in another order than the log positions
CREATE TABLE slots (id integer PRIMARY KEY, holder text UNIQUE, n integer DEFAULT 0);
ALTER TABLE slots REPLICA IDENTITY FULL;

-- target of COPY and TRUNCATE
CREATE TABLE bulk (id bigint PRIMARY KEY, grp integer NOT NULL, payload text, amount numeric(10,2));
ALTER TABLE bulk REPLICA IDENTITY FULL;

-- grows columns in mid-stream
CREATE TABLE evolving (id integer PRIMARY KEY, a text);
ALTER TABLE evolving REPLICA IDENTITY FULL;

-- who did it and why: rows of this table are contexts of their transaction, no changes
CREATE TABLE chronicle_context (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, actor text, context text NOT NULL);

CREATE TABLE chronicle_signal (id varchar(64) PRIMARY KEY, type varchar(32) NOT NULL, data varchar(2048));

-- json, not jsonb: numbers keep their digits. `seq` is drawn after the row is locked, so it orders the writes of one row.
-- op x: a context, written by the workload itself (tbl: message or table), because no trigger sees a logical message.
CREATE TABLE truth (seq bigserial PRIMARY KEY, tbl text NOT NULL, op char(1) NOT NULL, old_row json, new_row json, tx text NOT NULL DEFAULT (txid_current() % 4294967296)::text);
CREATE FUNCTION witness() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN INSERT INTO truth (tbl, op, new_row) VALUES (TG_TABLE_NAME, 'c', row_to_json(NEW));
  ELSIF TG_OP = 'UPDATE' THEN INSERT INTO truth (tbl, op, old_row, new_row) VALUES (TG_TABLE_NAME, 'u', row_to_json(OLD), row_to_json(NEW));
  ELSIF TG_OP = 'DELETE' THEN INSERT INTO truth (tbl, op, old_row) VALUES (TG_TABLE_NAME, 'd', row_to_json(OLD));
  ELSE INSERT INTO truth (tbl, op) VALUES (TG_TABLE_NAME, 't');
  END IF;
  RETURN NULL;
END $$;
DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['accounts','lines','codes','documents','wide','journal','spool','slots','bulk','evolving'] LOOP
    EXECUTE format('CREATE TRIGGER witness_rows AFTER INSERT OR UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION witness()', t);
    EXECUTE format('CREATE TRIGGER witness_truncate AFTER TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION witness()', t);
  END LOOP;
END $$;
