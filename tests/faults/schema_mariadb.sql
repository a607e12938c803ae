-- Tables of the fault workload on MariaDB. The triggers that write the truth follow from the catalog (workload_mariadb.py),
-- because they name every column and have to follow a column that is added. Statements end with a semicolon at the line's end.
CREATE TABLE accounts (
  id bigint PRIMARY KEY, name varchar(200) NOT NULL, note varchar(200) DEFAULT 'none', flag tinyint DEFAULT 1, small smallint, big bigint DEFAULT 42,
  ubig bigint unsigned, balance decimal(12,2) NOT NULL DEFAULT 0, huge decimal(38,10), ratio double,
  born date, seen_local datetime(6) DEFAULT '2024-01-01 00:00:00', seen timestamp(6) NULL DEFAULT NULL, alarm time(6),
  doc json, bytes varbinary(500), standing enum('new', 'good', 'barred') DEFAULT 'new', colours set('red', 'green', 'blue'), bits bit(12),
  api_token varchar(100)
) DEFAULT CHARSET=utf8mb4;
CREATE TABLE `lines` (order_id bigint, line_no int, product varchar(100) NOT NULL, qty int DEFAULT 1, price decimal(10,2), PRIMARY KEY (order_id, line_no)) DEFAULT CHARSET=utf8mb4;
CREATE TABLE codes (code varchar(100) COLLATE utf8mb4_bin PRIMARY KEY, label varchar(100) DEFAULT 'none', n int NOT NULL, body longtext, seen datetime(6)) DEFAULT CHARSET=utf8mb4;
CREATE TABLE wide (id int PRIMARY KEY,
  c00 int DEFAULT 7, c01 varchar(60), c02 decimal(14,3), c03 double, c04 tinyint, c05 datetime(6), c06 bigint,
  c07 int, c08 varchar(60), c09 decimal(14,3), c10 double, c11 tinyint, c12 datetime(6), c13 bigint,
  c14 int, c15 varchar(60) DEFAULT 'none', c16 decimal(14,3), c17 double, c18 tinyint, c19 datetime(6),
  c20 bigint, c21 int, c22 varchar(60), c23 decimal(14,3), c24 double, c25 tinyint, c26 datetime(6),
  c27 bigint, c28 int, c29 varchar(60), c30 decimal(14,3), c31 double, c32 tinyint, c33 datetime(6),
  c34 bigint, c35 int DEFAULT 7, c36 varchar(60), c37 decimal(14,3), c38 double, c39 tinyint, c40 datetime(6),
  c41 bigint, c42 int, c43 varchar(60), c44 decimal(14,3), c45 double, c46 tinyint, c47 datetime(6),
  c48 bigint, c49 int, c50 varchar(60) DEFAULT 'none', c51 decimal(14,3), c52 double, c53 tinyint, c54 datetime(6),
  c55 bigint, c56 int, c57 varchar(60), c58 decimal(14,3), c59 double, c60 tinyint, c61 datetime(6),
  c62 bigint, c63 int, c64 varchar(60), c65 decimal(14,3), c66 double, c67 tinyint, c68 datetime(6),
  c69 bigint, c70 int DEFAULT 7, c71 varchar(60), c72 decimal(14,3), c73 double, c74 tinyint, c75 datetime(6),
  c76 bigint, c77 int, c78 varchar(60), c79 decimal(14,3), c80 double, c81 tinyint, c82 datetime(6),
  c83 bigint
) DEFAULT CHARSET=utf8mb4;
CREATE TABLE journal (at datetime(6) NOT NULL, message text, n int) DEFAULT CHARSET=utf8mb4;
CREATE TABLE slots (id int PRIMARY KEY, holder varchar(100) UNIQUE, n int DEFAULT 0) DEFAULT CHARSET=utf8mb4;
CREATE TABLE bulk (id bigint PRIMARY KEY, grp int NOT NULL, payload text, amount decimal(10,2)) DEFAULT CHARSET=utf8mb4;
CREATE TABLE evolving (id int PRIMARY KEY, a text) DEFAULT CHARSET=utf8mb4;
-- who did it and why: rows of this table are contexts of their transaction, no changes
CREATE TABLE chronicle_context (id bigint AUTO_INCREMENT PRIMARY KEY, actor varchar(100), context longtext NOT NULL) DEFAULT CHARSET=utf8mb4;
CREATE TABLE chronicle_signal (id varchar(64) PRIMARY KEY, type varchar(32) NOT NULL, data varchar(2048));
CREATE TABLE truth (seq bigint AUTO_INCREMENT PRIMARY KEY, tbl varchar(64) NOT NULL, op char(1) NOT NULL, old_row longtext, new_row longtext, tx varchar(64) NOT NULL) DEFAULT CHARSET=utf8mb4;
