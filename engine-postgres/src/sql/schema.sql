-- Format 1. Everything lies in one schema, named by the option `schema`.
CREATE SCHEMA IF NOT EXISTS oncekey;

CREATE TABLE oncekey.store (                     -- one row
  one         boolean  PRIMARY KEY DEFAULT true CHECK (one),
  format      integer  NOT NULL,                 -- 1; a build refuses a greater one and leaves it untouched
  min_format  integer  NOT NULL,                 -- the format of the oldest build that may still write
  incarnation bigint   NOT NULL,                 -- random: Token.incarnation
  generation  bigint   NOT NULL,                 -- Token.epoch; the upper bits of every version that is drawn
  secret      bytea    NOT NULL CHECK (length(secret) = 64),
  bucket_ms   bigint   NOT NULL CHECK (bucket_ms > 0),    -- width of an expiry bucket
  leaves      smallint NOT NULL CHECK (leaves > 3),       -- the ring; the spare leaf has this number
  high_time   bigint   NOT NULL                  -- no decision is made at an earlier time
);

-- A crash and a promotion empty an unlogged table: without its row, the history may have been cut.
CREATE UNLOGGED TABLE oncekey.boot (
  one  boolean PRIMARY KEY DEFAULT true CHECK (one),
  mark bigint  NOT NULL                          -- random
);

-- Who does the upkeep locks this row, so that nobody waits for it at `store`.
CREATE TABLE oncekey.upkeep (
  one   boolean PRIMARY KEY DEFAULT true CHECK (one),
  at    bigint NOT NULL,                         -- when the last one began
  page  bigint NOT NULL,                         -- of `key`, where the rolling scan goes on
  began bigint NOT NULL,                         -- when this scan began
  whole bigint NOT NULL                          -- when the last scan began that came to the end
);

CREATE SEQUENCE oncekey.version AS bigint CACHE 1;  -- CACHE 1: Token promises an order across connections

CREATE TABLE oncekey.instance (                  -- one row for each open engine
  id          bigint PRIMARY KEY,                -- from the sequence
  name        text   NOT NULL,                   -- unique among the living when it is not empty
  lease_ms    bigint NOT NULL,
  since       bigint NOT NULL,                   -- it renewed without a gap since then
  lease_until bigint NOT NULL,
  ended_at    bigint,                            -- final once it is set
  named_at    bigint,                            -- ended, and the scan met a row in flight of it then
  build       text   NOT NULL
) WITH (fillfactor = 20, autovacuum_vacuum_threshold = 50, autovacuum_vacuum_scale_factor = 0);

-- The number of the last group of an instance on each lane. One that its process knows as acknowledged
-- and that is not here shows that the server lost history.
CREATE TABLE oncekey.mark (
  instance bigint   NOT NULL,
  lane     smallint NOT NULL,                    -- groups on two lanes do not wait for each other's row
  number   bigint   NOT NULL,
  PRIMARY KEY (instance, lane)
) WITH (fillfactor = 20, autovacuum_vacuum_threshold = 50, autovacuum_vacuum_scale_factor = 0);

CREATE TABLE oncekey.key (
  hash        uuid     NOT NULL PRIMARY KEY,     -- keyed with the secret, so that nobody outside chooses collisions
  version     bigint   NOT NULL,                 -- of the last change
  token       bigint   NOT NULL,                 -- version of the change that granted the claim
  owner       bigint   NOT NULL,                 -- instance of that claim
  writer      bigint   NOT NULL,                 -- instance and number of the last operation, as it was first sent:
  op          bigint   NOT NULL,                 --   they settle a lost answer
  started_at  bigint   NOT NULL,
  ttl_ms      bigint   NOT NULL,
  deadline    bigint,                            -- of the claim itself (max_execution)
  since       bigint,                            -- 2: orphan since; 3, 4: completed at
  expires_at  bigint,                            -- 2, 3, 4: absent from then on; 0: may be deleted a minute later
  attempt     integer  NOT NULL,
  state       smallint NOT NULL,                 -- 0 free, 1 in flight, 2 orphan, 3 completed, 4 completed without response
  leaf        smallint,                          -- of its row in `response`; NULL while it is in flight
  identity    bytea    NOT NULL,
  fingerprint bytea    NOT NULL,
  checkpoint  bytea
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0,
        autovacuum_vacuum_insert_scale_factor = 0.1);
ALTER TABLE oncekey.key ALTER checkpoint SET STORAGE EXTERNAL;

-- Lists the orphans. An index of `key`, kept by hand; no answer but the list depends on it.
CREATE TABLE oncekey.orphan (
  hash  uuid   PRIMARY KEY,
  since bigint NOT NULL
);

-- Responses, and without a body an entry for everything else that expires. A leaf holds the rows that
-- expire in one bucket of time; it is emptied as a whole and comes around again. The version is the key:
-- it only grows, so that each insert goes to the right edge of the index.
CREATE TABLE oncekey.response (
  leaf       smallint NOT NULL,
  version    bigint   NOT NULL,
  expires_at bigint   NOT NULL,
  hash       uuid     NOT NULL,
  body       bytea,
  PRIMARY KEY (leaf, version)
) PARTITION BY LIST (leaf);
ALTER TABLE oncekey.response ALTER body SET STORAGE EXTERNAL;
