, ins AS (
  INSERT INTO oncekey.key AS k (hash, version, token, owner, writer, op, started_at, ttl_ms, deadline, attempt, state, identity, fingerprint)
  SELECT hash, v, v, $2, $8::bigint, op, now, ttl_ms, now + deadline_in, 1, 1, identity, fingerprint
  FROM (SELECT c.*, s.now, nextval('oncekey.version') AS v
        FROM s, c WHERE s.gate = 0 AND NOT s.ended
          AND NOT EXISTS (SELECT 1 FROM oncekey.key k WHERE k.hash = c.hash)) n  -- ON CONFLICT alone waits for an update of the row
  ON CONFLICT (hash) DO NOTHING                  -- the images come in the order of their hashes: no deadlock
  RETURNING k.hash, k.version, k.started_at AS now
)
