, ins AS (
  INSERT INTO oncekey.key AS k (hash, version, token, owner, writer, op, started_at, ttl_ms, deadline, attempt, state, identity, fingerprint)
  SELECT hash, v, v, $2, writer, op, now, ttl_ms, now + deadline_in, attempt, state, identity, fingerprint
  FROM (SELECT n.*, nextval('oncekey.version') AS v
        FROM (SELECT * FROM i WHERE expected = 0
                AND NOT EXISTS (SELECT 1 FROM oncekey.key k WHERE k.hash = i.hash)  -- ON CONFLICT alone waits for an update of the row
              ORDER BY hash) n) n                -- one order for all: no deadlock
  ON CONFLICT (hash) DO NOTHING
  RETURNING k.hash, k.version
)
